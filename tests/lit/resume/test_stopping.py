"""Stopping on a signal, without a run."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from lit.resume import stopping
from lit.resume.stopping import StopOnSignal, StoppedError
from lit.run.folder import RunFolder


@pytest.mark.parametrize(
    ("environment", "handler"),
    [
        (SLURMEnvironment(auto_requeue=True), "Lightning's"),
        (SLURMEnvironment(auto_requeue=False), "ours"),
        (LightningEnvironment(), "ours"),
    ],
)
def test_slurm_with_requeueing_keeps_lightnings_signal_handlers(
    environment: object, handler: str, tmp_path: Path
) -> None:
    stop = StopOnSignal(RunFolder(tmp_path))
    trainer = SimpleNamespace(
        _accelerator_connector=SimpleNamespace(cluster_environment=environment)
    )
    with stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # stands for Lightning's
        stop.on_train_start(trainer)  # type: ignore[arg-type]
        is_lightnings = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    assert is_lightnings == (handler == "Lightning's")


def test_a_signal_before_training_stops_at_once_and_reports_it(tmp_path: Path) -> None:
    with (
        pytest.raises(StoppedError, match="SIGTERM: stopped at once"),
        StopOnSignal(RunFolder(tmp_path)),
    ):
        signal.raise_signal(signal.SIGTERM)


def test_the_old_signal_handlers_are_restored(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopOnSignal(RunFolder(tmp_path)):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize("step_ends", [False, True])
def test_a_signal_in_training_saves_and_logs_the_step_when_it_ends(
    step_ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "step_ends", lambda trainer: step_ends)
    monkeypatch.setattr(stopping, "step_record", lambda trainer: {"train/loss": 1.0})
    saved: list[Path] = []
    logged: list[tuple] = []
    trainer: Any = SimpleNamespace(
        _accelerator_connector=SimpleNamespace(cluster_environment=LightningEnvironment()),
        loggers=[SimpleNamespace(log_metrics=lambda *values: logged.append(values))],
        save_checkpoint=saved.append,
        global_step=7,
        world_size=1,
    )
    with StopOnSignal(RunFolder(tmp_path)) as stop:
        stop.on_train_start(trainer)
        signal.raise_signal(signal.SIGTERM)
        if step_ends:
            with pytest.raises(StoppedError, match="SIGTERM: saved") as error:
                stop.on_train_batch_end(trainer)
            assert error.value.exit_code == 143
        else:
            stop.on_train_batch_end(trainer)
    assert saved == ([RunFolder(tmp_path).last] if step_ends else [])
    assert logged == ([({"train/loss": 1.0}, 6)] if step_ends else [])
