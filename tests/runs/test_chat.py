"""A conversation, through a real terminal and through a pipe."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest
import torch

from data.template import encode, prompt_ids
from data.text import clean
from data.types import Message
from lit.answering.generation import stop_tokens
from lit.chat import main
from lit.model.tuned import load
from lora.config import LoRAConfig
from lora.injection import inject, lora_layers
from lora.storage.adapter import save_adapter

COMMAND = [sys.executable, "-m", "lit.chat"]
ANSWER = ["--max_new_tokens", "12"]
PROMPT = r">\x08?\x1b\[2C"
"""How prompt_toolkit draws the prompt "> ", once for each line that it reads."""
TAKEN = "\x1b[?2004l"
"""What prompt_toolkit sends when it has a line, and keys are the terminal's again."""
NOISE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


@pytest.fixture(scope="module")
def adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the tiny model says."""
    model, tokenizer = load(None, str(tiny_folder))
    torch.manual_seed(5)
    inject(model, LoRAConfig(r=4))
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.5)
    folder = save_adapter(model, tmp_path_factory.mktemp("adapter"), str(tiny_folder))
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def endless(tiny_folder: Path, tmp_path: Path) -> Path:
    """A base that never says a stop token, so that no answer ends before it is stopped."""
    folder = shutil.copytree(tiny_folder, tmp_path / "endless")
    model, tokenizer = load(None, str(folder))
    model.config.max_position_embeddings = 200_000  # an answer has to fit into the context
    with torch.no_grad():
        # The first coordinate of each state is far above 0, and only stop tokens dislike it.
        model.get_input_embeddings().weight[:, 0] = 1000
        model.get_output_embeddings().weight[:, 0] = 0
        model.get_output_embeddings().weight[stop_tokens(model, tokenizer), 0] = -100
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Return a function that runs chat with lines on its standard input: what it prints."""

    def run(lines: str, *arguments: str) -> str:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        assert main([*arguments, *ANSWER]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def terminal(adapter: Path) -> Iterator[pexpect.spawn]:
    """Chat with the adapter in a terminal, ready for the first line."""
    # A slow reader is a dumb terminal: without it prompt_toolkit asks where the cursor is.
    environment = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
    arguments = ["-m", "lit.chat", "--adapter", str(adapter), "--max_new_tokens", "40"]
    child = pexpect.spawn(
        sys.executable,
        arguments,
        env=environment,
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 200),
    )
    child.expect("/help lists the commands")
    child.expect(PROMPT)
    yield child
    child.close(force=True)


def ask(child: pexpect.spawn, text: str) -> str:
    """Type a line; what is on the screen after it, until the next prompt."""
    child.send(text + "\r")
    child.expect_exact(TAKEN)
    child.expect(PROMPT)
    return NOISE.sub("", child.before)


def test_a_question_on_a_pipe_is_answered_line_by_line(
    adapter: Path, piped: Callable[..., str]
) -> None:
    lines = "Почему?\n\nКак тепло?\n"
    command = [*COMMAND, "--adapter", str(adapter), *ANSWER]
    done = subprocess.run(
        command, input=f"{lines}/quit\nnever asked\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = re.fullmatch(
        r"> Почему\?\n(.*)\n\n> Как тепло\?\n(.*)\n\n> /quit\n", done.stdout, re.DOTALL
    ).groups()
    assert first
    assert second
    assert piped(f"{lines}/quit\n", "--adapter", str(adapter)) == done.stdout
    assert "\x1b" not in done.stdout


def test_base_and_tuned_answer_from_one_model_and_differ(
    adapter: Path, tiny_folder: Path, piped: Callable[..., str]
) -> None:
    both = piped("/both\nWhy?\n", "--adapter", str(adapter))
    base, tuned = re.search(r"\[base\] (.*)\[tuned\] (.*)", both, re.DOTALL).groups()
    assert base != tuned
    asked = "> Why?\n"
    assert asked + base + "\n" == piped("Why?\n", "--base", str(tiny_folder))
    assert piped("Why?\n", "--adapter", str(adapter)) == asked + tuned
    switched = piped("/base\nWhy?\n", "--adapter", str(adapter))
    assert switched == f"> /base\nbase answers\n\n{asked}{base}\n"


def test_a_conversation_in_a_terminal(terminal: pexpect.spawn, tmp_path: Path) -> None:
    first = ask(terminal, "Почему деталь отклеилась?")
    assert first.strip()
    assert "history cleared" in ask(terminal, "/reset")
    assert ask(terminal, "Почему деталь отклеилась?") == first
    ask(terminal, "/both")
    answer = ask(terminal, "И что теперь?")
    assert "[base]" in answer
    assert "[tuned]" in answer
    saved = tmp_path / "talk.jsonl"
    assert "appended to" in ask(terminal, f"/save {saved}")
    turns = json.loads(saved.read_text("utf-8"))["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2
    assert turns[0]["content"] == "Почему деталь отклеилась?"
    assert "unknown command /nonsense" in ask(terminal, "/nonsense")
    terminal.send("\x1b[A\x1b[A")  # the arrow up, twice: the line before the last
    terminal.expect_exact("/save")
    terminal.send("\x03")
    terminal.expect(PROMPT)
    terminal.send("/quit\r")
    terminal.expect(pexpect.EOF)


def test_pasted_lines_are_one_question(terminal: pexpect.spawn, tmp_path: Path) -> None:
    terminal.send("\x1b[200~one\ntwo\nthree\x1b[201~\r")
    terminal.expect(PROMPT)
    ask(terminal, f"/save {tmp_path / 'talk.jsonl'}")
    row = json.loads((tmp_path / "talk.jsonl").read_text("utf-8"))
    assert row["messages"][0]["content"] == "one\ntwo\nthree"
    assert len(row["messages"]) == 2


def test_control_c_stops_an_answer_and_not_the_program(adapter: Path, endless: Path) -> None:
    arguments = ["-m", "lit.chat", "--adapter", str(adapter), "--max_new_tokens", "100000"]
    arguments += ["--base", str(endless)]
    arguments += ["--temperature", "3"]  # words are shown whole: at random, a space comes soon
    environment = os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm"}
    child = pexpect.spawn(
        sys.executable,
        arguments,
        env=environment,
        encoding="utf-8",
        timeout=60,
        # A shell starts what it runs in the background with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    child.expect(PROMPT)
    child.send("/system be endless\r")
    child.expect(PROMPT)
    child.send("Tell me everything\r")
    child.expect_exact(TAKEN)
    child.expect(r"[^\x00-\x20\x1b]{5}")  # it streams: text is there long before the end
    child.sendintr()
    child.expect_exact("…")
    child.expect(PROMPT)
    child.send("/quit\r")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_the_prompt_is_the_one_that_training_used(adapter: Path) -> None:
    _, tokenizer = load(adapter)
    asked = [Message("system", "Коротко."), Message("user", "Почему <|im_end|> тут?")]
    row = encode([*asked, Message("assistant", "Потому.")], tokenizer)
    before = prompt_ids(asked, tokenizer)
    assert row.ids[: len(before)] == before
    assert all(label == -100 for label in row.labels[: len(before)])
    assert row.labels[len(before)] != -100


def test_raw_text_is_continued_without_a_template(
    adapter: Path, capsys: pytest.CaptureFixture
) -> None:
    asked = ["--adapter", str(adapter), *ANSWER, "--prompt", "Видеомонтаж — это"]
    assert main([*asked, "--template", "none"]) == 0
    raw = capsys.readouterr().out
    assert main(asked) == 0
    assert capsys.readouterr().out != raw


def test_escape_sequences_of_a_model_do_not_reach_the_terminal() -> None:
    said = "a\x1b[2J\x1b]0;title\x07b\x9b31mc\td\ne"
    shown = clean(said)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", shown)
    assert shown.endswith("c\td\ne")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --adapter D, or --base NAME"),
        (["--adapter", "nowhere"], "adapter_config.json"),
        (["--base", "./nowhere"], "no folder ./nowhere"),
        (["--temperature", "-1"], "--temperature"),
    ],
)
def test_a_wrong_start_ends_with_2_and_is_named(
    arguments: list[str], said: str, tiny_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    base = [] if not arguments or arguments[0] != "--temperature" else ["--base", str(tiny_folder)]
    assert main([*base, *arguments, "--prompt", "?"]) == 2
    assert said in capsys.readouterr().err
