"""Stopping on a signal, without a run."""

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

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
