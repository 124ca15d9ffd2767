"""The best adapter of a run stays the best one, also when the run resumes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit.run.folder import RunFolder
from lit.train.best_adapter import BestAdapter


class Module:
    """A module whose adapter is one number."""

    def __init__(self, value: float = 0.0) -> None:
        self.value = torch.tensor(value)

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"B": self.value}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        self.value = state["B"].clone()


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The adapters that are written, in their order."""
    written: list[float] = []
    monkeypatch.setattr(
        BestAdapter, "save", lambda callback, module: written.append(float(module.value))
    )
    return written


def callback(rows: int = 4) -> BestAdapter:
    data: Any = SimpleNamespace(val_rows=torch.arange(rows).numpy())
    return BestAdapter(RunFolder(Path("unused")), data)


def validate(best: BestAdapter, step: int, loss: float, adapter: float) -> None:
    trainer: Any = SimpleNamespace(
        callback_metrics={"val/loss": torch.tensor(loss)}, global_step=step
    )
    module: Any = Module(adapter)
    best.on_validation_end(trainer, module)


def test_only_an_adapter_with_a_lower_loss_is_saved(saved: list[float]) -> None:
    best = callback()
    for step, loss in enumerate((3.0, 3.5, 2.0, 2.5, 2.0, 1.0, float("nan"))):
        validate(best, step, loss, adapter=step)
    assert saved == [1, 2, 5]
    assert (best.base_loss, best.loss, best.step, best.validated) == (3.0, 1.0, 5, 6)


def test_a_resumed_run_does_not_replace_the_best_adapter_by_a_worse_one(saved: list[float]) -> None:
    first, resumed = callback(), callback()
    for step, loss in enumerate((3.0, 1.0, 1.5)):
        validate(first, step, loss, adapter=step)
    resumed.load_state_dict(first.state_dict())
    validate(resumed, 3, 1.2, adapter=3)
    assert saved == [1]
    assert resumed.state_dict() == first.state_dict() | {"validated": 3}


def test_a_resumed_run_writes_the_best_adapter_and_continues_with_the_last_one(
    saved: list[float],
) -> None:
    first, resumed = callback(), callback()
    for step, loss in enumerate((3.0, 1.0, 1.5)):
        validate(first, step, loss, adapter=step)
    resumed.load_state_dict(first.state_dict())
    saved.clear()
    module: Any = Module(2.0)
    resumed.on_fit_start(SimpleNamespace(), module)  # type: ignore[arg-type]
    assert saved == [1]
    assert module.value == 2.0


def test_without_validation_rows_the_last_adapter_is_saved(saved: list[float]) -> None:
    best = callback(rows=0)
    best.on_fit_end(SimpleNamespace(global_step=7), Module(7.0))  # type: ignore[arg-type]
    assert saved == [7]
    assert best.step == best.validated == 7


def test_the_adapter_with_the_highest_matching_is_kept_and_of_equal_ones_the_lower_loss(
    saved: list[float],
) -> None:
    best = BestAdapter(callback().folder, callback().data, best_by="matching")
    measured = [(3.0, 0.9), (2.0, 0.3), (1.0, 0.2), (2.5, 0.5), (2.4, 0.5), (float("nan"), 1.0)]
    for step, (loss, matching) in enumerate(measured):
        trainer: Any = SimpleNamespace(
            callback_metrics={"val/loss": torch.tensor(loss), "val/matching": matching},
            global_step=step,
        )
        module: Any = Module(step)
        best.on_validation_end(trainer, module)
    assert saved == [1, 3, 4]
    assert (best.loss, best.matching, best.step) == (pytest.approx(2.4), 0.5, 4)
