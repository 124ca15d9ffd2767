"""16-mixed: a loss scaler on a simulated overflow, with Lightning's own plugin on the CPU."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import make_trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from test_module import TenLineData

from lit.train.module import LoRAModule
from lit.train.step_guard import MOST_OVERFLOWS, StepGuard, TrainingError
from lora.config import LoRAConfig


class ScaledOnCPU(MixedPrecision):
    """Lightning's 16-mixed with the scaler that torch has for a CPU."""

    def __init__(self, scale: float) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=10**6)
        super().__init__("16-mixed", "cpu", scaler)


class Norms(L.Callback):
    """Keeps the logged norm of each step, and the adapter before and after it."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.logged.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def train(folder: Path, logs: Path, plugin: Any, epochs: int = 1) -> tuple[LoRAModule, Norms]:
    model = LoRAModule(str(folder), lora=LoRAConfig(r=4), lr=1e-2)
    norms = Norms()
    trainer = make_trainer(
        max_epochs=epochs,
        callbacks=[norms],
        plugins=plugin,
        gradient_clip_val=1.0,
        logger=True,
        log_every_n_steps=1,
        default_root_dir=str(logs),
    )
    trainer.fit(model, TenLineData())
    return model, norms


def test_the_logged_norm_is_that_of_the_unscaled_gradients(tiny_folder: Path, tmp_path: Path):
    scaled = [train(tiny_folder, tmp_path, ScaledOnCPU(scale))[1].logged for scale in (1.0, 1024.0)]
    for small, large in zip(*scaled, strict=True):
        assert large["train/grad_norm"] == pytest.approx(small["train/grad_norm"], rel=0.05)
        assert (small["train/loss_scale"], large["train/loss_scale"]) == (1.0, 1024.0)


def test_a_step_that_overflows_is_counted_and_said_and_changes_nothing(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    # At so large a scale the first gradients overflow; each skipped step halves it.
    model, norms = train(tiny_folder, tmp_path, ScaledOnCPU(2.0**24), epochs=8)
    overflowed = model.step_guard.overflowed
    assert 1 <= overflowed < len(norms.logged)
    assert norms.logged[-1]["train/overflowed_steps"] == overflowed
    assert norms.logged[-1]["train/loss_scale"] == 2.0 ** (24 - overflowed)
    output = capsys.readouterr().out
    assert output.count("the gradients overflow in float16") == 1
    assert f"run    {overflowed} of {len(norms.logged)} steps overflowed in float16" in output


def test_a_run_whose_every_step_overflows_stops_and_says_what_to_set(
    tiny_folder: Path, tmp_path: Path
):
    with pytest.raises(TrainingError, match=r"all 4 steps overflowed .*precision to 32-true"):
        train(tiny_folder, tmp_path, ScaledOnCPU(2.0**120))
    guard = StepGuard(skip=False)
    for step in range(1, MOST_OVERFLOWS):
        assert guard.accepts(step, 1.0, float("inf"), 1e-4, scaled=True)
    with pytest.raises(TrainingError, match=f"all {MOST_OVERFLOWS} steps overflowed in float16"):
        guard.accepts(MOST_OVERFLOWS, 1.0, float("nan"), 1e-4, scaled=True)


def test_a_loss_that_is_not_finite_stops_a_scaled_run_too():
    with pytest.raises(TrainingError, match=r"overflows in float16: set trainer\.precision"):
        StepGuard(skip=False).accepts(1, float("nan"), 1.0, 1e-4, scaled=True)


def test_overflows_after_a_good_step_do_not_stop_a_run():
    guard = StepGuard(skip=False)
    assert guard.accepts(1, 1.0, 1.0, 1e-4, scaled=True)
    for step in range(2, 3 * MOST_OVERFLOWS):
        assert guard.accepts(step, 1.0, float("inf"), 1e-4, scaled=True)
    resumed = StepGuard(skip=False)
    resumed.load_state_dict(guard.state_dict())
    assert resumed.overflowed == guard.overflowed
