"""What a checkpoint gets beside Lightning's state, and what a resumed run does with it."""

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from data.planning.step_map import Segment
from lit.resume import resume_state
from lit.resume.resume_point import CHECKPOINT_KEY, ResumePoint
from lit.resume.resume_state import ResumeState

RECORD = {"train/loss": 1.5}
SEGMENTS = (Segment(0, 0, 0, 4), Segment(6, 1, 8, 2))


def state(point: ResumePoint | None = None, micro_step: int = 0) -> ResumeState:
    """Return the callback of a run whose plans are at a micro-step."""
    plans = SimpleNamespace(
        step_map=SimpleNamespace(segments=SEGMENTS), micro_step=lambda epoch, step: micro_step
    )
    data: Any = SimpleNamespace(plans=plans)
    return ResumeState({"model.lr": "0.1"}, point or ResumePoint(), data)


def trainer(step: int, validating: bool = False) -> Any:
    return SimpleNamespace(global_step=step, validating=validating)


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Lightning says of the step that ends: its record, its position, a due validation."""
    says = SimpleNamespace(record=RECORD, position={"at": 1}, due=False)
    monkeypatch.setattr(resume_state, "step_ends", lambda trainer: True)
    monkeypatch.setattr(resume_state, "step_record", lambda trainer: says.record)
    monkeypatch.setattr(resume_state, "fit_position", lambda trainer: says.position)
    monkeypatch.setattr(resume_state, "validation_is_due", lambda trainer: says.due)
    return says


def saved(callback: ResumeState, at: Any) -> dict[str, Any]:
    checkpoint: dict[str, Any] = {"loops": {"fit_loop": {"at": 2}}}
    callback.on_save_checkpoint(at, nn.Module(), checkpoint)  # type: ignore[arg-type]
    return checkpoint


def test_a_checkpoint_holds_settings_steps_and_the_record_of_its_step(
    lightning: SimpleNamespace,
) -> None:
    assert saved(state(), trainer(7))[CHECKPOINT_KEY] == {
        "settings": {"model.lr": "0.1"},
        "step_map": [(0, 0, 0, 4), (6, 1, 8, 2)],
        "validation_due": False,
        "record": RECORD,
        "library": "torch",
    }


def test_the_record_of_a_step_is_kept_until_a_checkpoint_after_it(
    lightning: SimpleNamespace,
) -> None:
    callback = state()
    callback.on_train_batch_end(trainer(7))
    lightning.record = {}  # in a validation, Lightning has no values of the step any more
    assert saved(callback, trainer(7, validating=True))[CHECKPOINT_KEY]["record"] == RECORD


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize(("due", "validating"), [(False, False), (True, False), (False, True)])
def test_a_validation_is_due_until_it_has_ended(
    due: bool, validating: bool, validated: bool, lightning: SimpleNamespace
) -> None:
    lightning.due = due
    callback = state()
    callback.on_train_batch_end(trainer(7))
    callback.on_validation_end(trainer(7 if validated else 5))
    checkpoint = saved(callback, trainer(7, validating))
    assert checkpoint[CHECKPOINT_KEY]["validation_due"] == ((due or validating) and not validated)
    # In a validation, Lightning's own position is already behind the step's end.
    interrupted = validating and not validated
    assert checkpoint["loops"]["fit_loop"] == {"at": 1 if interrupted else 2}


@pytest.mark.parametrize("due", [False, True])
def test_a_resumed_run_first_does_the_validation_that_was_due(
    due: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[object] = []
    monkeypatch.setattr(resume_state, "run_due_validation", ran.append)
    at = trainer(7)
    state(ResumePoint(step=7, validation_due=due)).on_train_start(at)
    assert ran == ([at] if due else [])


@pytest.mark.parametrize(("record", "logged"), [(RECORD, [(RECORD, 6)]), ({}, [])])
def test_a_resumed_run_logs_the_record_of_its_checkpoint(record: dict, logged: list) -> None:
    calls: list[tuple] = []
    loggers = [SimpleNamespace(log_metrics=lambda *values: calls.append(values))]
    point = ResumePoint(step=7, record=record)
    state(point).on_fit_start(SimpleNamespace(loggers=loggers))  # type: ignore[arg-type]
    assert calls == logged


@pytest.mark.parametrize(("done", "expected"), [(12, 8), (0, 0)])
def test_lightnings_position_is_converted_to_the_current_number_of_ranks(
    done: int, expected: int
) -> None:
    counts = {"ready": done, "completed": done}
    loop = {
        "epoch_progress": {"current": {"completed": 1}},
        "epoch_loop.batch_progress": {"current": counts},
    }
    checkpoint: dict[str, Any] = {"loops": {"fit_loop": loop}}
    callback = state(ResumePoint(step=7), micro_step=8)
    callback.on_load_checkpoint(trainer(7), SimpleNamespace(), checkpoint)  # type: ignore[arg-type]
    assert counts == {"ready": expected, "completed": expected}
