"""Issue 13, part A: no command loses a file of a person, and none leaves a half-written one."""

import io
import json
import os
import re
import resource
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from lit import chat, check, compare, doctor, embedded, export, fit, merge
from lit.comparison.folder import FILES, replacing_comparison
from lit.run.card import write_plain_card
from lit.run.folder import RunFolder
from lit.run.lock import FolderLock
from lit.run.metrics_file import COLUMNS
from lit.run.output import creating, remove_leftovers
from lit.run.ownership import MARKER, OWNED, TOKENIZER, foreign_files, is_run, write_marker
from lora.config import ConfigError, LoRAConfig
from lora.injection import inject, lora_layers
from lora.storage.adapter import save_adapter
from lora.storage.files import append_line, temporary_path

ROWS = [
    {"prompt": f"How warm must bed {i} be?", "response": f"Bed {i} must be {50 + i} degrees warm."}
    for i in range(12)
]


def tree(folder: Path) -> dict[str, bytes | str]:
    """Return the content of each file in a folder, and the target of each link."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def write(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def one_line(text: str) -> bool:
    lines = [line for line in text.splitlines() if not line.startswith("Seed set")]
    return len(lines) == 1 and lines[0].startswith("error: ")


def make_run(folder: Path) -> Path:
    """Write a folder as a run leaves it, with files of a person that a run does not touch."""
    folder.mkdir(exist_ok=True)
    write_marker(folder)
    for name, patterns in OWNED.items():
        if not patterns:
            write(folder / name, "of the run")
    for name in ("adapter_model.safetensors", "tokenizer.json", "README.md"):
        write(folder / "adapter" / name, "of the run")
    write(folder / "checkpoints" / "last.ckpt", "of the run")
    write(folder / "checkpoints" / "manifest.json", json.dumps({"last.ckpt": ["0" * 64]}))
    write(folder / "tensorboard" / "events.out.tfevents.1.host.2.0", "of the run")
    for name in ("check.html", "comparison/report.html", "merged/model.safetensors", "notes.md"):
        write(folder / name)
    return folder


PERSONS = (
    *("config.yaml", "loss.png", "validation.jsonl", "metrics.csv", MARKER, "adapter"),
    *("adapter/README.md", "checkpoints/notes.txt", "tensorboard/notes.txt"),
)


@pytest.mark.parametrize("overwrite", ["false", "true"])
@pytest.mark.parametrize("name", PERSONS, ids=lambda name: f"A1: a person's {name}")
def test_a_folder_with_a_persons_file_is_refused_and_stays_as_it_is(
    name: str, overwrite: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write(tmp_path / "out" / name)
    before = tree(tmp_path)
    args = ["--model.base", "nowhere", "--data.path", "nowhere.jsonl", "--overwrite", overwrite]
    assert fit.main([*args, "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert one_line(error), error
    assert f"holds {name.split('/')[0]}, which a run would replace" in error
    assert "Choose another --output_dir" in error
    assert check.main([*args, "--output_dir", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == error
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [".env.template", "check.html", "a.txt.tmp", ".lit-lora", "x/y"])
def test_a_persons_file_that_no_run_writes_stays(name: str, tmp_path: Path) -> None:
    path, folder = write(tmp_path / name), RunFolder(tmp_path)
    for resume, overwrite in ((False, False), (True, False), (False, True)):
        with folder.claimed(resume, overwrite):
            folder.prepare(resume)
    assert path.read_text() == "mine"


def test_overwriting_removes_what_the_run_owns_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(make_run(tmp_path / "run"))
    with folder.claimed(resume=False, overwrite=True):
        folder.prepare(resume=False)
    rest = tree(folder.path)
    assert rest.pop(MARKER)
    assert set(rest.values()) == {b"mine"}
    assert len(rest) == 4
    assert not {path.name for path in folder.path.iterdir()} & OWNED.keys()


def link_out(path: Path) -> None:
    """Replace a file or folder by a link to one outside of the run."""
    outside = path.parents[1] / "outside" / path.name
    outside.parent.mkdir(exist_ok=True)
    path.rename(outside)
    path.symlink_to(outside)


IN_A_RUN: dict[str, Callable[[Path], object]] = {
    "A1: notes in adapter/": lambda run: write(run / "adapter" / "notes.txt"),
    "A1: a folder in adapter/": lambda run: write(run / "adapter" / "vocab.d" / "notes.txt"),
    "A1: a copied checkpoint": lambda run: write(run / "checkpoints" / "best-copy.ckpt"),
    "A1: notes in tensorboard/": lambda run: write(run / "tensorboard" / "notes.txt"),
    "A1: checkpoints/ is a link": lambda run: link_out(run / "checkpoints"),
    "A1: config.yaml is a link": lambda run: link_out(run / "config.yaml"),
    "A1: metrics.csv is a folder": lambda run: (
        (run / "metrics.csv").unlink(),
        write(run / "metrics.csv" / "notes.txt"),
    ),
    "A1: a link to a folder in adapter/": lambda run: (run / "adapter" / "mine").symlink_to("/"),
}


@pytest.mark.parametrize("case", IN_A_RUN)
def test_overwriting_a_run_with_a_persons_file_among_its_own_is_refused(
    case: str, tmp_path: Path
) -> None:
    folder = RunFolder(make_run(tmp_path / "run"))
    IN_A_RUN[case](folder.path)
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match="move it away"), folder.claimed(False, overwrite=True):
        pass
    # Resuming touches none of these files.
    with folder.claimed(resume=True, overwrite=False):
        pass
    assert tree(tmp_path) == before


def test_a_link_with_a_temporary_name_is_neither_followed_nor_removed(tmp_path: Path) -> None:
    outside, run = tmp_path / "outside", make_run(tmp_path / "run")
    write(outside / "file")
    write(temporary_path(outside / "file"))
    temporary_path(run / "a").symlink_to(outside)
    temporary_path(run / "b").symlink_to(outside / "file")
    link_out(run / "adapter")
    write(temporary_path(run / "adapter" / "c"))
    before = tree(tmp_path)
    with RunFolder(run).claimed(resume=True, overwrite=False):
        pass
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kept", ["metrics.csv", "checkpoints"])
def test_a_run_of_an_older_version_is_recognized(kept: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / MARKER).unlink()
    if kept == "metrics.csv":
        shutil.rmtree(run / "checkpoints")
        (run / kept).write_text(",".join(COLUMNS) + "\n")
    assert is_run(run)
    with RunFolder(run).claimed(resume=False, overwrite=True):
        RunFolder(run).prepare(resume=False)
    assert (run / MARKER).is_file()
    assert not (run / "config.yaml").exists()


def test_a_checkpoint_of_another_folder_does_not_replace_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A1: --ckpt_path FILE of one run with the output_dir of another one."""
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "other")
    before = tree(tmp_path)
    args = ["--model.base", "nowhere", "--data.path", "nowhere.jsonl", "--output_dir", str(other)]
    assert fit.main([*args, "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert tree(tmp_path) == before


INPUTS = {
    "A1: data.val_path": ("data.val_path", "validation.jsonl"),
    "A1: data.path": ("data.path", "validation.jsonl"),
    "A1: a second data.path": ("data.path", ["{data}", "validation.jsonl"]),
    "A1: data.path is the run's folder": ("data.path", ""),
    "A1: data.template": ("data.template", "adapter/chat_template.jinja"),
    "A1: model.base": ("model.base", "checkpoints/base"),
    "A1: a link to the file": ("data.val_path", "../link.jsonl"),
    "A1: --config": ("config", "config.yaml"),
}


@pytest.mark.parametrize("main", [fit.main, check.main], ids=["fit", "check"])
@pytest.mark.parametrize("case", INPUTS)
def test_an_input_that_the_run_would_replace_is_refused(
    case: str, main: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    setting, value = INPUTS[case]
    out = tmp_path / "out"
    row = json.dumps(ROWS[0]) + "\n"
    data = write(tmp_path / "rows.jsonl", row)
    for name in ("validation.jsonl", "adapter/chat_template.jinja", "checkpoints/base/x"):
        write(out / name, row)
    write(out / "config.yaml", f"output_dir: {out}\n")
    (tmp_path / "link.jsonl").symlink_to(out / "validation.jsonl")
    names = [value] if isinstance(value, str) else value
    paths = [str(data) if name == "{data}" else str(out / name) for name in names]
    before = tree(tmp_path)
    args = ["--model.base", "nowhere", "--data.path", str(data), "--output_dir", str(out)]
    given = paths[0] if isinstance(value, str) else json.dumps(paths)
    assert (
        main(["--config", given, *args] if setting == "config" else [*args, f"--{setting}", given])
        == 2
    )
    error = capsys.readouterr().err
    assert one_line(error), error
    assert f"{setting} is {paths[-1]}" in error
    assert tree(tmp_path) == before


def test_the_config_of_a_run_may_be_given_again(tmp_path: Path) -> None:
    run = RunFolder(make_run(tmp_path / "run"))
    run.check_inputs([("--config", run.config)])
    with pytest.raises(ConfigError, match=r"data.val_path is .*, which this run would replace"):
        run.check_inputs([("data.val_path", run.validation)])


def test_a_persons_page_is_not_replaced_by_a_check(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = write(tmp_path / "check.html", "<p>mine</p>")
    args = ["--model.base", "nowhere", "--data.path", "nowhere.jsonl"]
    assert check.main([*args, "--output_dir", str(tmp_path)]) == 2
    assert "was not written by lit.check" in capsys.readouterr().err
    assert path.read_text() == "<p>mine</p>"


@pytest.mark.parametrize("name", FILES)
def test_a_persons_file_is_not_replaced_by_a_comparison(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = write(tmp_path / "comparison" / name)
    args = ["--adapter", str(tmp_path / "adapter"), "--output_dir", str(path.parent)]
    assert compare.main(args) == 2
    assert f"holds {name}, which no comparison wrote" in capsys.readouterr().err
    assert tree(tmp_path) == {f"comparison/{name}": b"mine"}


def test_a_comparison_replaces_an_earlier_one_completely_or_not_at_all(tmp_path: Path) -> None:
    result = json.dumps(
        dict.fromkeys(["adapter", "base", "data_source", "forgetting", "answers", "pictures"])
    )
    folder = tmp_path / "comparison"
    for name in FILES:
        write(folder / name, result)
    write(folder / "notes.txt")
    before = tree(tmp_path)

    def fail() -> None:
        with replacing_comparison(folder, []) as new:
            write(new / "report.json", "half")
            raise ValueError("killed")

    with pytest.raises(ValueError, match="killed"):
        fail()
    assert tree(tmp_path) == before
    with replacing_comparison(folder, []) as new:
        write(new / "report.json", "new")
    assert tree(folder) == {"report.json": b"new", "notes.txt": b"mine"}
    write(folder / "report.json", result)
    questions = folder / "base_answers.txt"
    with pytest.raises(ConfigError, match=f"{questions} would be replaced"):
        replacing_comparison(folder, [None, questions]).__enter__()


@pytest.mark.parametrize("kind", ["changed", "a person's", "a link", "unchanged"])
def test_a_model_card_that_a_person_changed_stays(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    card = tmp_path / "README.md"
    write_plain_card(tmp_path, "old/base")
    text = card.read_text("utf-8")
    if kind == "changed":
        card.write_text(text.replace("# LoRA", "# My LoRA"), "utf-8")
    elif kind == "a person's":
        card.write_text("mine")
    elif kind == "a link":
        card.rename(tmp_path / "own.md")
        card.symlink_to(tmp_path / "own.md")
    before = tree(tmp_path)
    write_plain_card(tmp_path, "new/base")
    if kind == "unchanged":
        assert "new/base" in card.read_text("utf-8")
    else:
        assert tree(tmp_path) == before
        assert f"{card} stays" in capsys.readouterr().out


def test_the_embedded_model_does_not_replace_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A1: python -m lit.embedded ~/Documents removed the folder."""
    path = write(tmp_path / "Documents" / "thesis.tex")
    assert embedded.main([str(path.parent)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert path.read_text() == "mine"


def test_the_list_has_every_file_of_a_tokenizer() -> None:
    folder = Path(transformers.__file__).parent
    names = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    for path in folder.glob("models/*/tokenization_*.py"):
        for table in re.findall(r"(?i)vocab_files_names\s*=\s*\{(.*?)\}", path.read_text(), re.S):
            names |= set(re.findall(r':\s*"([^"]+)"', table))
    assert len(names) > 12
    patterns = [re.escape(pattern).replace(r"\*", "[^/]*") for pattern in TOKENIZER]
    assert not [name for name in names if not any(re.fullmatch(p, name) for p in patterns)]


@pytest.fixture(scope="module")
def adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of a tiny model; its B is not zero."""
    from lit.model.base import load_base

    model = load_base(str(tiny_folder))
    inject(model, LoRAConfig(r=4))
    torch.manual_seed(3)
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    folder = save_adapter(model, tmp_path_factory.mktemp("run") / "adapter", str(tiny_folder))
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def commands(
    adapter: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Callable[[Path], int]]:
    """Each command that writes, as a function of the path to write."""
    questions = write(tmp_path / "input" / "questions.txt", "Why?\n")
    data = write(tmp_path / "input" / "rows.jsonl", "".join(json.dumps(r) + "\n" for r in ROWS))
    name = ["--adapter", str(adapter)]

    def convert(gguf: Path, folder: Path) -> None:
        for path in tiny_folder.iterdir():
            folder.mkdir(exist_ok=True)
            # With the mode, as safetensors sets its own.
            shutil.copyfile(path, folder / path.name)
            (folder / path.name).chmod(0o640)

    monkeypatch.setattr(embedded, "download", lambda folder: folder)
    monkeypatch.setattr(embedded, "convert", convert)

    def train(out: Path) -> int:
        settings = ["--model.base", str(tiny_folder), "--data.path", str(data)]
        more = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"]
        return fit.main([*settings, *more, "--output_dir", str(out)])

    def compare_answers(out: Path) -> int:
        brief = ["--questions", str(questions), "--max_new_tokens", "2"]
        return compare.main([*name, *brief, "--output_dir", str(out)])

    def export_as(kind: str, *more: str) -> Callable[[Path], int]:
        return lambda out: export.main([*name, "--format", kind, "--output", str(out), *more])

    def examine(out: Path) -> int:
        settings = ["--model.base", str(tiny_folder), "--data.path", str(data)]
        more = ["--trainer.accelerator", "cpu", "--output_dir", str(out)]
        return check.main([*settings, *more])

    def diagnose(out: Path) -> int:
        monkeypatch.setattr("lit.diagnosis.checks.CHECKS", {})
        out.parent.mkdir()
        return doctor.main(["--output", str(out)])

    return {
        "fit": train,
        "compare": compare_answers,
        "merge": lambda out: merge.main([*name, "--output_dir", str(out), "--ollama"]),
        "export peft": export_as("peft"),
        "export merged": export_as("merged"),
        "export gguf": export_as("gguf"),
        "export gguf with a Modelfile": export_as("gguf", "--ollama"),
        "check": examine,
        "doctor": diagnose,
        "embedded": lambda out: embedded.main([str(out)]),
    }


WRITING = ("compare", "merge", "export peft", "export merged", "export gguf", "embedded")
"""The commands that write one file or folder; a run of lit.fit writes many, one by one."""
PAGES = ("check", "doctor", "export gguf with a Modelfile")


@contextmanager
def set_umask(umask: int) -> Iterator[None]:
    old = os.umask(umask)
    try:
        yield
    finally:
        os.umask(old)


# It gives the group and other users different rights: a fixed mode fails, the open and the private.
@pytest.mark.parametrize("umask", [0o027], ids=["umask 027"])
@pytest.mark.parametrize("command", [f"A2: {name}" for name in ("fit", *WRITING, *PAGES)])
def test_what_a_command_writes_follows_the_umask(
    command: str, umask: int, commands: dict[str, Callable[[Path], int]], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    with set_umask(umask):
        assert commands[command.removeprefix("A2: ")](out) == 0
    modes = {path: path.stat().st_mode for path in [out.parent, *out.parent.rglob("*")]}
    assert len(modes) > 1
    wrong = [
        (str(path), oct(mode))
        for path, mode in modes.items()
        if stat.S_IMODE(mode) != (0o777 if stat.S_ISDIR(mode) else 0o666) & ~umask
    ]
    assert not wrong
    if command == "A2: fit":
        # The one list has everything that a run writes.
        assert {path.name for path in out.iterdir()} == {*OWNED, MARKER}
        assert not list(foreign_files(out))


@pytest.mark.parametrize("umask", [0o077, 0o022], ids=["umask 077", "umask 022"])
def test_a_saved_conversation_follows_the_umask(
    umask: int, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "saved.jsonl"
    monkeypatch.setattr("sys.stdin", io.StringIO(f"Why?\n/save {path}\n"))
    with set_umask(umask):
        assert chat.main(["--adapter", str(adapter), "--max_new_tokens", "2"]) == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """Let a write fail that makes a file larger than ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 2_000, 20_000])
@pytest.mark.parametrize("command", [f"15: {name}" for name in WRITING])
def test_a_disk_that_fills_up_exits_with_1_with_one_line_and_leaves_nothing(
    command: str,
    size: int,
    commands: dict[str, Callable[[Path], int]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    out = tmp_path / "new" / "out"
    with limited_files(size):
        code = commands[command.removeprefix("15: ")](out)
    error = capsys.readouterr().err
    if size == 20_000 and code == 0:
        assert all(path.stat().st_size <= size for path in [out, *out.rglob("*")] if path.is_file())
        return
    assert code == 1
    assert error.endswith(f"error: {out}: File too large\n")
    assert error.count("error") == 1
    assert not out.parent.exists()


@pytest.mark.parametrize("command", [f"15: {name}" for name in ("fit", *WRITING)])
def test_a_file_system_without_inodes_exits_with_1_with_one_line(
    command: str,
    commands: dict[str, Callable[[Path], int]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "nr_inodes=2", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        (disk / "file").touch()
        code = commands[command.removeprefix("15: ")](disk / "out")
        error = capsys.readouterr().err
        assert code == 1
        assert one_line(error), error
        assert "No space left on device" in error
        assert str(disk / "out") in error
        assert [path.name for path in disk.iterdir()] == ["file"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("command", [f"A2: {name}" for name in ("fit", *WRITING)])
def test_a_place_that_cannot_be_written_to_exits_with_1_with_one_line_before_the_work(
    command: str,
    commands: dict[str, Callable[[Path], int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    file = write(tmp_path / "file")
    monkeypatch.setattr("lit.model.base.load_base", lambda *_: pytest.fail("a model was loaded"))
    assert commands[command.removeprefix("A2: ")](file / "new" / "out") == 1
    error = capsys.readouterr().err
    assert one_line(error), error
    assert "Not a directory" in error or "File exists" in error
    assert file.read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_killed_command_left_is_removed_by_the_next_one_with_the_same_output(
    kind: str, tmp_path: Path
) -> None:
    path, stale, other = (temporary_path(tmp_path / name) for name in ("out", "out", "other"))
    in_use = temporary_path(tmp_path / "out")
    for folder in (path, in_use, other):
        write(folder / "out" / "model.safetensors")
    shutil.rmtree(path)
    write(stale)
    with FolderLock(in_use), creating(tmp_path / "out") as new:
        new.mkdir() if kind == "folder" else new.touch()
    assert {path.name for path in tmp_path.iterdir()} == {"out", in_use.name, other.name}
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_does_not_remove_the_working_folder_of_a_live_merge(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with creating(run / "merged-again") as new:
        new.mkdir()
        with RunFolder(run).claimed(resume=True, overwrite=False):
            pass
    assert (run / "merged-again").is_dir()


def test_a_line_is_appended_completely_or_not_at_all(tmp_path: Path) -> None:
    """A2: /save glued its row to a last line without a line end, and a full disk left a half."""
    path = write(tmp_path / "rows.jsonl", "mine")
    append_line(path, "new")
    assert path.read_text() == "mine\nnew\n"
    new = tmp_path / "new.jsonl"
    for file in (path, new):
        with limited_files(12), pytest.raises(OSError, match="File too large"):
            append_line(file, "a line that is too long for the disk")
    assert path.read_text() == "mine\nnew\n"
    assert not new.exists()
