"""C11, C12: every command and every stream; what a person types, closes, kills or pipes."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import PreTrainedTokenizerFast

from data.types import DataError
from lit.answering import conversation as conversations
from lit.answering.conversation import Conversation
from lit.answering.generation import Sampling
from lit.resume.stopping import StopOnSignal, StoppedError
from lit.run.command import Terminated, run_command
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lora.config import ConfigError
from lora.storage.files import PREFIX

COMMANDS = ("fit", "check", "chat", "compare", "merge", "export", "embedded", "quickstart")
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from lit.run.command import run_command
from lora.storage.files import replacing
def body():
    BODY
sys.exit(run_command(body, {}))
"""
BARS = "loss 2.5 → 1.5 … done – █ привет"


def raising(error: BaseException) -> int:
    def body() -> None:
        raise error

    return run_command(body, {"max_length": "data.max_length"})


def start(body: str, **streams: object) -> subprocess.Popen:
    """Start a command in a process of its own; it loads no library."""
    code = PROGRAM.replace("BODY", body.replace("\n", "\n    "))
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    environment |= streams.pop("env", {})  # type: ignore[arg-type]
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, env=environment, **streams
    )  # type: ignore[call-overload]


ERRORS: dict[str, tuple[BaseException, int, str]] = {
    "C11: a missing file": (FileNotFoundError(2, "No such file or directory", "x"), 1, "x: No"),
    "C11: a full disk": (OSError(28, "No space left on device"), 1, "No space left"),
    "C11: an error of several lines": (OSError("first\nsecond"), 1, "first\n"),
    "C11: a wrong value": (ValueError("bad thing"), 1, "bad thing (ValueError in "),
    "C11: NUL in a path": (ValueError("embedded null byte"), 2, "a path contains the character"),
    "C11: text that is not Unicode": (
        UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"),
        *(2, "is not Unicode"),
    ),
    "C11: too little memory": (MemoryError(), 1, "out of memory"),
    "C11: Ctrl-C": (KeyboardInterrupt(), 130, ""),
    "C11: SIGTERM": (Terminated(), 143, ""),
    "C11: a wrong setting": (ConfigError("`max_length` is 0"), 2, "data.max_length is 0"),
    "C12: controls in a stranger's text": (DataError("a\x1b[2J\u202eb"), 2, "error: a[2Jb\n"),
}


@pytest.mark.parametrize("attack", ERRORS)
def test_an_error_is_one_line_and_an_exit_code(attack: str, capsys: pytest.CaptureFixture) -> None:
    error, code, text = ERRORS[attack]
    assert raising(error) == code
    printed = capsys.readouterr().err
    assert text in printed
    assert printed.count("\n") == bool(text)
    assert "Traceback" not in printed


def test_an_error_of_this_program_keeps_its_traceback() -> None:
    with pytest.raises(KeyError):
        raising(KeyError("a fault"))


STREAMS: dict[str, dict] = {
    "C11: a closed stdout": {"stdout": "closed"},
    "C11: a pipe without a reader": {"stdout": "broken"},
    "C11: a full disk": {"stdout": "full"},
    "C11: ASCII": {"env": {"PYTHONIOENCODING": "ascii"}},
    "C11: latin-1": {"env": {"PYTHONIOENCODING": "latin-1"}},
    "C11: cp866": {"env": {"PYTHONIOENCODING": "cp866"}},
    "C15: LANG=C": {"env": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}},
}


@pytest.mark.parametrize("attack", STREAMS)
def test_no_stdout_ends_a_command(attack: str, tmp_path: Path) -> None:
    kind, options = STREAMS[attack].get("stdout", "pipe"), dict(STREAMS[attack])
    options["stdout"] = subprocess.PIPE
    if kind == "full":
        options["stdout"] = open("/dev/full", "w")  # noqa: SIM115
    elif kind == "broken":
        reader, options["stdout"] = os.pipe()
        os.close(reader)
    elif kind == "closed":
        options |= {"stdout": None, "preexec_fn": lambda: os.close(1)}
    file = tmp_path / "done"
    body = f"""for line in range(20000): print({BARS!a}, flush=line % 50 == 0)
Path({str(file)!r}).write_text("done")"""
    process = start(body, **options)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    # Where stdout was closed, no other file gets its number and what is printed.
    assert file.read_text() == "done"
    assert b"Traceback" not in error
    assert (b"No space left" in error) == (kind == "full")
    if kind == "pipe":
        assert out.startswith(b"loss 2.5 -> 1.5 ... done - ")
        assert out.count(b"\n") == 20000


def test_a_closed_stdout_does_not_get_the_number_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint"
    body = f"""file = open({str(file)!r}, "wb")
os.system("echo from another program")
os.write(1, b"from a library")
print("from this program", flush=True)
file.close()"""
    process = start(body, stdout=None, preexec_fn=lambda: os.close(1))
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert file.read_bytes() == b""


def test_sigterm_ends_with_143_and_removes_temporary_files(tmp_path: Path) -> None:
    body = f"""with replacing(Path({str(tmp_path / "file")!r})):
    print("ready", flush=True)
    time.sleep(60)"""
    process = start(body, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert list(tmp_path.glob(f"{PREFIX}*"))
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert error == b""
    assert not list(tmp_path.iterdir())


def test_a_forked_worker_ends_by_sigterm_and_the_command_continues() -> None:
    body = """reader, writer = os.pipe()
child = os.fork()
if not child:
    os.write(writer, b"x")
    time.sleep(60)
    os._exit(0)
os.read(reader, 1)
os.kill(child, signal.SIGTERM)
return 0 if os.waitpid(child, 0)[1] == signal.SIGTERM else 5"""
    process = start(body, stdout=subprocess.PIPE)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, b"")


def test_a_command_in_a_thread_sets_no_handler() -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(run_command(lambda: 3, {})))
    thread.start()
    thread.join()
    assert codes == [3]


def test_the_handler_of_sigterm_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run_command(lambda: signal.raise_signal(signal.SIGTERM), {}) == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_a_wrong_flag_survive_a_narrow_stdout(command: str) -> None:
    code = f"from lit.{command} import main; import sys; sys.exit(main(['--no_such_flag']))"
    if command in ("fit", "check"):
        code = f"import lit.{command}, sys; print('torch' in sys.modules); sys.exit(2)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    # What takes seconds is imported inside the wrapper, where Ctrl-C is no traceback.
    assert "True" not in done.stdout


def test_a_signal_handler_prints_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = StopOnSignal(RunFolder(tmp_path))
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", write_through=True)
    monkeypatch.setattr(sys, "stdout", narrow)
    with stop:
        stop.training = True
        signal.raise_signal(signal.SIGTERM)
        assert narrow.buffer.getvalue() == b""  # type: ignore[attr-defined]
        assert stop.number == signal.SIGTERM
        stop._announce()
        stop._announce()
        assert narrow.buffer.getvalue().count(b"\n") == 1  # type: ignore[attr-defined]
        with pytest.raises(StoppedError):
            signal.raise_signal(signal.SIGINT) or signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("fault", [BrokenPipeError, ValueError, UnicodeEncodeError])
def test_a_line_of_a_training_run_may_be_lost(fault: type, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise fault("latin-1", "…", 0, 1, "") if fault is UnicodeEncodeError else fault

    monkeypatch.setattr(sys, "stdout", Broken())
    print_rank0("step 1 …")


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture
def chat(
    shown: list[str], tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> Conversation:
    """A conversation with a model that repeats the question in red, backwards."""

    def stream(model: object, tokenizer: object, ids: list, sampling: object, show: object) -> None:
        show("\x1b[31m\u202eanswer\x00\x9b")  # type: ignore[operator]

    monkeypatch.setattr(conversations, "stream", stream)
    monkeypatch.setattr(conversations, "use_model", lambda *_: io.StringIO())
    model = SimpleNamespace()
    return Conversation(model, tokenizer, Sampling(), False, shown.append)  # type: ignore[arg-type]


TYPED: dict[str, tuple[str, str]] = {
    "C12: bad UTF-8 on stdin": ("Why \udcff?", "answer"),
    "C12: a superscript as seed": ("/seed ²", "must be a whole number"),
    "C12: no number as seed": ("/seed x", "must be a whole number"),
    "C12: a seed of 5,000 digits": ("/seed " + "9" * 5000, "must be a whole number"),
    "C12: a seed of 2**70": (f"/seed {2**70}", "from 0 to"),
    "C12: a negative seed": ("/seed -1", "from 0 to"),
    "C12: Arabic digits": ("/seed ٣", "seed 3"),
    "C12: NUL in a path": ("/save a\0b", "null byte"),
    "C12: a folder as a file": ("/save .", "is not a file"),
    "C12: a FIFO as a file": ("/save fifo", "is not a file"),
    "C12: a missing folder": ("/save no/such/file", "No such file"),
    "C12: controls in a command": ("/x\x1b[2J\u202e", "unknown command /x[2J;"),
    "C12: controls in a system text": ("/system \x1b[2J", "system: [2J"),
}


@pytest.mark.parametrize("attack", TYPED)
def test_nothing_that_is_typed_ends_a_chat(
    attack: str,
    chat: Conversation,
    shown: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    typed, answer = TYPED[attack]
    assert chat.handle("hello")
    assert chat.handle(typed)
    text = "".join(shown)
    assert answer in text
    assert not {"\x1b", "\u202e", "\0", "\x9b"} & set(text)
    # What was said is saved as it was, and every character of it can be written.
    assert chat.handle("/save talk.jsonl")
    turns = json.loads(Path("talk.jsonl").read_text("utf-8"))["messages"]
    assert turns[-1]["content"] == "\x1b[31m\u202eanswer\x00\x9b"


SAMPLING: dict[str, dict] = {
    "C12: --seed 2**70": {"seed": 2**70},
    "C12: a negative seed": {"seed": -1},
    "C12: a temperature that is no number": {"temperature": float("nan")},
    "C12: an infinite temperature": {"temperature": float("inf")},
    "C12: a temperature that divides to infinity": {"temperature": 1e-320},
    "C12: a top_p that is no number": {"top_p": float("nan")},
}


@pytest.mark.parametrize("attack", SAMPLING)
def test_a_sampling_setting_out_of_range_is_named(attack: str) -> None:
    with pytest.raises(ConfigError, match="--" + next(iter(SAMPLING[attack]))):
        Sampling(**SAMPLING[attack])
