"""metrics.csv of a run that was resumed is that of a run that never stopped."""

from pathlib import Path

import pytest

from lit.run.metrics import MetricsTable
from lit.run.metrics_file import read_losses, read_table

EVENTS: list[tuple[str, int]] = [
    ("val/loss", 0),
    *(("train/loss", 0), ("train/loss", 1), ("val/loss", 2)),
    *(("train/loss", 2), ("train/loss", 3), ("val/loss", 4)),
]
"""What a run of 4 steps logs: a step by its index, a validation by the steps before it."""


def log(path: Path, events: list[tuple[str, int]], done: int = 0) -> None:
    table = MetricsTable(path, done)
    for name, step in events:
        table.log_metrics({name: 10 - step, "epoch": 0}, step)


@pytest.fixture
def whole(tmp_path: Path) -> bytes:
    """The table of a run that never stopped."""
    path = tmp_path / "whole.csv"
    log(path, EVENTS)
    train, val = read_losses(path)
    assert train == [(0, 10), (1, 9), (2, 8), (3, 7)]
    assert val == [(0, 10), (2, 8), (4, 6)]
    return path.read_bytes()


@pytest.mark.parametrize("logged", range(3, 8))
@pytest.mark.parametrize("validated", [False, True])
def test_a_run_resumed_after_step_2_gets_the_rows_of_one_that_never_stopped(
    logged: int, validated: bool, whole: bytes, tmp_path: Path
) -> None:
    """It was killed after any number of rows; the checkpoint is of before or after a validation."""
    path = tmp_path / "resumed.csv"
    log(path, EVENTS[: max(logged, 4) if validated else logged])
    # It first logs the checkpoint's own step, and the validation if it was still due.
    log(path, [EVENTS[2], *EVENTS[4 if validated else 3 :]], done=2)
    assert path.read_bytes() == whole


def test_a_row_that_was_cut_by_a_kill_is_replaced(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "resumed.csv"
    log(path, EVENTS[:5])
    path.write_bytes(path.read_bytes()[:-5])
    log(path, [EVENTS[2], *EVENTS[4:]], done=2)
    assert path.read_bytes() == whole


def test_a_metric_of_a_persons_own_gets_a_column_and_keeps_it_when_resumed(
    whole: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "own.csv"
    log(path, [*EVENTS[:5], ("own/f1", 2)])
    assert [row["own/f1"] for row in read_table(path)] == ["", "", "", "", "", "8"]
    assert [row["train/loss"] for row in read_table(path)][1:3] == ["10", "9"]
    log(path, [EVENTS[2], *EVENTS[4:], ("own/f1", 4)], done=2)
    # The one of step 2 belongs to no step that was done before the checkpoint.
    assert [row["own/f1"] for row in read_table(path)][-1] == "6"
    assert read_losses(path) == read_losses(tmp_path / "whole.csv")


def test_a_new_run_replaces_the_table(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    log(path, EVENTS)
    log(path, EVENTS)
    assert path.read_bytes() == whole
