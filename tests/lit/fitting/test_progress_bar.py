"""The progress bar on a terminal of any width, in the encoding of any console."""

import io
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from lit.fitting import progress_bar
from lit.fitting.progress_bar import ProgressBar

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def draw(
    encoding: str, monkeypatch: pytest.MonkeyPatch, columns: int = 60, **options: Any
) -> list[str]:
    """Return what a run and a validation draw, frame by frame."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding, errors="strict"))
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": str(columns), "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(progress_bar, "step_ends", lambda trainer: True)
    values = {"train/loss": 10.7994, "train/tokens_per_s": 12345.678}
    state = SimpleNamespace(fn="fit")
    trainer = SimpleNamespace(
        global_step=1000, callback_metrics=values, num_val_batches=[3], state=state
    )
    bar = ProgressBar(lambda: 1020, **options)
    bar.on_train_start(trainer)
    for trainer.global_step in range(1001, 1021):
        bar.on_train_batch_end(trainer)
    bar.on_validation_start(trainer)
    for _ in range(3):
        bar.on_validation_batch_end()
    bar.on_validation_end(trainer)
    bar.on_train_end()
    sys.stdout.flush()
    frames = re.split(r"[\r\n]+", CONTROLS.sub("", raw.getvalue().decode(encoding)))
    return [frame for frame in frames if frame.strip()]


@pytest.mark.parametrize("encoding", ["utf-8", "cp866", "cp1251", "cp1252", "ascii"])
def test_a_bar_fits_one_line_in_any_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = draw(encoding, monkeypatch)
    assert max(map(len, frames)) <= 60
    last = next(frame for frame in frames if "step 1020/1020" in frame)
    assert "loss 10.799  12346 tokens/s  0 s left" in last
    assert any("validation 3/3" in frame for frame in frames)
    assert ("━" in "".join(frames)) == (encoding == "utf-8")


SHOWN = {
    100: ["loss 10.799", "tokens/s", "best 3.4102 (trial 0)", "12 min left"],
    70: ["best 3.4102 (trial 0)", "12 min left"],
    45: ["12 min left"],
    30: [],
    12: [],
}
"""What is shown of a trial by the width of the terminal."""


@pytest.mark.parametrize("columns", SHOWN)
@pytest.mark.parametrize("encoding", ["utf-8", "cp866", "ascii"])
def test_a_narrow_bar_leaves_out_what_matters_least(
    columns: int, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ["best 3.4102 (trial 0)", "12 min left"]
    frames = draw(encoding, monkeypatch, columns, name="trial 12 step", values=lambda: values)
    assert max(map(len, frames)) <= columns
    whole = [text for text in SHOWN[100] if any(text in frame for frame in frames)]
    assert whole == SHOWN[columns]
    assert all(frame.startswith(("trial 12 st", "validation")) for frame in frames)
