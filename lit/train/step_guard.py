"""The checks of every optimizer step: gradients in each layer, and finite numbers."""

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from lit.messages import tr, tr_mark
from lit.model.silent_layers import layers_without_gradient, unchanged_layers
from lit.run.console import print_rank0

LISTED_ROWS = 8
"""Rows of a step that one message lists."""
MOST_OVERFLOWS = 20
"""A run ends if so many steps overflow in float16, one after another, from its beginning."""
FLOAT16 = tr_mark(
    "This model overflows in float16: set trainer.precision to 32-true, or to bf16-mixed on "
    "a GPU of compute capability 8.0 or more."
)
OTHER_PRECISION = tr_mark("Try another trainer.precision")


class TrainingError(RuntimeError):
    """Training cannot continue; the message says at which step and what to try."""

    exit_code = 1


class StepGuard(Callback):
    """Checks the loss and the gradients before each update.

    A step whose numbers are not finite never changes the adapter: it stops the run, or it is
    skipped and counted.

    Args:
        skip: Skip such a step instead of stopping.
    """

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.skipped = 0
        self.overflowed = 0
        """Steps that the loss scaler of 16-mixed skipped."""
        self.locate_rows: Callable[[], list[str]] | None = None
        """Returns file and line of each row of the current step; set by whoever knows them."""

    def accepts(self, step: int, loss: float, norm: float, lr: float, scaled: bool = False) -> bool:
        """Return True for a step with finite numbers, and False for one to skip.

        Args:
            step: The number of the optimizer step, from 1.
            loss: Its loss.
            norm: The norm of its gradients, unscaled.
            lr: Its learning rate.
            scaled: Whether a loss scaler skips steps whose gradients overflow, as 16-mixed has one.

        Raises:
            TrainingError: A number is not finite, and such steps are not skipped; or every step so
                far has overflowed in float16.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            return True
        if scaled and math.isfinite(loss):
            self._count_overflow(step)
            return True
        message = tr(
            "step {step}: loss {loss}, gradient norm {norm}, lr {lr:.3g}",
            step=step,
            loss=loss,
            norm=norm,
            lr=lr,
        )
        if self.locate_rows is not None:
            rows = _listed(self.locate_rows())
            message = tr("{message}, rows {rows}", message=message, rows=rows)
        if not self.skip:
            raise TrainingError(
                tr(
                    "{message}. The adapter was not updated. {advice} Lower model.lr, check these "
                    "rows, or set model.on_nonfinite to skip",
                    message=message,
                    advice=tr(FLOAT16),
                )
                if scaled
                else tr(
                    "{message}. The adapter was not updated. Lower model.lr, check these rows, or "
                    "set model.on_nonfinite to skip",
                    message=message,
                )
            )
        self.skipped += 1
        print_rank0(
            tr("{message}: skipped, {skipped} so far", message=message, skipped=self.skipped)
        )
        return False

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop where the validation loss is not finite, unless such steps are skipped.

        Raises:
            TrainingError: It is not finite.
        """
        loss = float(trainer.callback_metrics["val/loss"])
        if math.isfinite(loss):
            return
        step = trainer.global_step
        if step == 0:
            advice = FLOAT16 if trainer.precision == "16-mixed" else OTHER_PRECISION
            text = tr_mark("the validation loss of the base model is {loss}. {advice}")
            raise TrainingError(tr(text, loss=loss, advice=tr(advice)))
        if not self.skip:
            raise TrainingError(
                tr(
                    "step {step}: the validation loss is {loss}. The best adapter so far is "
                    "kept. Lower model.lr and start again",
                    step=step,
                    loss=loss,
                )
            )
        print_rank0(
            tr(
                "step {step}  validation loss {loss}: not compared with the best",
                step=step,
                loss=loss,
            )
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print how many steps were skipped, and refuse an adapter that learned nothing.

        Raises:
            TrainingError: B of a layer is still zero.
        """
        if self.skipped:
            print_rank0(
                tr(
                    "run    skipped {skipped} of {steps} steps: not finite",
                    skipped=self.skipped,
                    steps=trainer.global_step,
                )
            )
        if self.overflowed:
            print_rank0(
                tr(
                    "run    {overflowed} of {steps} steps overflowed in float16 and did "
                    "not change the adapter",
                    overflowed=self.overflowed,
                    steps=trainer.global_step,
                )
            )
            self._check_overflows(trainer.global_step)
        if problem := unchanged_layers(pl_module, trainer.global_step):
            raise TrainingError(problem)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"skipped": self.skipped, "overflowed": self.overflowed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        # A checkpoint of an older version has no overflows, as it did not count them.
        self.skipped, self.overflowed = state_dict["skipped"], state_dict.get("overflowed", 0)

    def scaler_values(self, scaler: torch.amp.GradScaler | None) -> dict[str, float]:
        """Return what a run logs of its loss scaler; the device is asked for the scale."""
        if scaler is None:
            return {}
        values = {"train/loss_scale": scaler.get_scale()}
        return values | {"train/overflowed_steps": float(self.overflowed)}

    def _count_overflow(self, step: int) -> None:
        self.overflowed += 1
        if self.overflowed == 1:
            print_rank0(
                tr(
                    "step {step}: the gradients overflow in float16, so the loss scaler skips "
                    "the step and lowers its scale, as it does in the first steps of most runs; "
                    "the learning rate counts the step",
                    step=step,
                )
            )
        if step >= MOST_OVERFLOWS:
            self._check_overflows(step)

    def _check_overflows(self, steps: int) -> None:
        if self.overflowed >= steps:
            raise TrainingError(
                tr(
                    "all {steps} steps overflowed in float16, so the adapter has learned "
                    "nothing. {float16}",
                    steps=steps,
                    float16=tr(FLOAT16),
                )
            )


def loss_scaler(trainer: L.Trainer) -> torch.amp.GradScaler | None:
    """Return the loss scaler of a trainer, which 16-mixed has alone."""
    return getattr(trainer.precision_plugin, "scaler", None)


def check_gradients(model: nn.Module) -> None:
    """Check after the first backward pass that every adapted layer has a gradient.

    Raises:
        TrainingError: A layer has none, or zeros only.
    """
    if problem := layers_without_gradient(model):
        raise TrainingError(problem)


def _listed(rows: list[str]) -> str:
    listed, more = ", ".join(rows[:LISTED_ROWS]), len(rows) - LISTED_ROWS
    return tr("{listed} and {more} more", listed=listed, more=more) if more > 0 else listed
