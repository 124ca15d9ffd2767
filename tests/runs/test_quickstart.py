"""python -m lit.quickstart: the steps that are left, and how one that fails or is stopped ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lit import quickstart

ADAPTER = str(Path("runs/quickstart/adapter"))
FETCH = ("lit.embedded",)
FIT = ("lit.fit", "--config", str(Path("configs/quickstart.yaml")), "--overwrite", "true")
COMPARE = ("lit.compare", "--adapter", ADAPTER, "--batch_size", quickstart.BATCH)
MODEL, PICTURE, REPORT = (
    *("models/SmolLM2-135M-Instruct/config.json", "runs/quickstart/loss.png"),
    "runs/quickstart/comparison/report.html",
)
STEPS: dict[str, tuple[list[str], list[tuple[str, ...]]]] = {
    "nothing": ([], [FETCH, FIT, COMPARE]),
    "the model": ([MODEL], [FIT, COMPARE]),
    "a run that did not end": ([MODEL, "runs/quickstart/metrics.csv"], [FIT, COMPARE]),
    "a run": ([MODEL, PICTURE], [COMPARE]),
    "a comparison of an older run": ([MODEL, REPORT, PICTURE], [COMPARE]),
    "a comparison": ([MODEL, PICTURE, REPORT], []),
}
"""What is there, the oldest first, and the steps that are left."""
STEP = """
import signal, sys, time
from pathlib import Path
def save(number, frame):
    time.sleep(0.4)
    Path("saved").touch()
    sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the config, as the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("configs").mkdir()
    Path("configs/quickstart.yaml").touch()
    return tmp_path


@pytest.mark.parametrize("there", STEPS)
def test_only_what_is_left_is_done(
    there: str, clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    names, steps = STEPS[there]
    for age, name in enumerate(reversed(names)):
        path = clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    done: list[tuple[str, ...]] = []

    def run(*command: str) -> None:
        done.append(command)
        if command == FIT:
            (clone / PICTURE).parent.mkdir(parents=True, exist_ok=True)
            (clone / PICTURE).touch()

    monkeypatch.setattr(quickstart, "_run", run)
    monkeypatch.setattr(sys, "executable", str(clone / "env" / "python"))
    assert quickstart.main([]) == 0
    assert done == steps
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"adapter     {ADAPTER}"
    assert lines[-1] == f"talk to it  {Path('env/python')} -m lit.chat --adapter {ADAPTER}"


def test_missing_packages_and_another_folder_are_one_line(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(quickstart, "PACKAGES", ("json", "no_such_package"))
    assert quickstart.main([]) == 2
    assert capsys.readouterr().err == (
        "error: no_such_package is not installed: run python -m pip install -c constraints.txt "
        '-e ".[quickstart]"\n'
    )
    (clone / "configs/quickstart.yaml").unlink()
    assert quickstart.main([]) == 2
    assert "change to the folder of lit-lora's clone first" in capsys.readouterr().err


def test_the_exit_code_of_a_step_is_the_commands(clone: Path) -> None:
    Path("step.py").write_text("raise SystemExit(3)")
    with pytest.raises(Exception, match=r"^$") as error:
        quickstart._run("step")
    assert error.value.exit_code == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_step_ends_by_itself(number: signal.Signals, clone: Path) -> None:
    Path("step.py").write_text(STEP)
    code = (
        "import sys; from lit import quickstart; from lit.run.command import run_command; "
        "sys.exit(run_command(lambda: quickstart._run('step'), {}))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (128 + number, b"")
    assert Path("saved").exists()
