"""What a command shows before its libraries are loaded."""

import gc
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lit.run.console import loading_libraries

LIBRARIES = ("torch", "transformers", "lightning", "numpy")
STARTED = {
    "fit": [],
    "check": [],
    "chat": ["--base", "m"],
    "compare": ["--adapter", "a"],
    "merge": ["--adapter", "a", "--output_dir", "o"],
    "export": ["--adapter", "a", "--format", "peft"],
    "serve": ["--base", "m"],
    "doctor": [],
    "quickstart": [],
    "embedded": ["no-such-folder"],
}
PROGRAM = f"""
import contextlib, importlib, io, json, subprocess, sys

class Loading(BaseException):
    pass

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {LIBRARIES}:
            raise Loading

def stop(*args, **options):
    raise Loading

sys.meta_path.insert(0, Finder())
subprocess.run = subprocess.Popen = stop
shown = {{}}
for command, arguments in {STARTED}.items():
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        try:
            importlib.import_module(f"lit.{{command}}").main(arguments)
            ended = "without a library"
        except Loading:
            ended = "at a library"
    shown[command] = [ended, stream.getvalue().splitlines()]
print(json.dumps(shown))
"""


def test_every_command_shows_a_line_before_it_loads_a_library(tmp_path: Path) -> None:
    # Where lit.quickstart has its config and the model, its first step is to train.
    for path in ("configs/quickstart.yaml", "models/SmolLM2-135M-Instruct/config.json"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).touch()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "RANK": "0"},
    )
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    own = {"quickstart": "quickstart: train the adapter", "embedded": "downloading"}
    for command in STARTED:
        ended, lines = shown[command]
        assert len(lines) == 1, (command, lines)
        assert lines[0].startswith(own.get(command, "loading the libraries"))
        assert ended == "at a library"


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_collected_again_once_the_libraries_are_loaded(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(gc, "freeze", lambda: None)  # this process lives on
    with suppress(ImportError), loading_libraries():
        assert not gc.isenabled()
        if fails:
            raise ImportError
    assert gc.isenabled()


def test_a_rank_that_another_process_starts_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    for rank in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", rank)
        with loading_libraries():
            pass
        assert bool(capsys.readouterr().err) == (rank == "0")
