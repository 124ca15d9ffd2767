"""The checks of every optimizer step: gradients in each layer, and finite numbers."""

from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from lit.run.console import print_rank0
from lora.injection import lora_layers

LISTED_ROWS = 8
"""Rows of a step that one message lists."""


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
        self.locate_rows: Callable[[], list[str]] | None = None
        """Returns file and line of each row of the current step; set by whoever knows them."""

    def accepts(self, step: int, loss: float, norm: float, lr: float) -> bool:
        """Return True for a step with finite numbers, and False for one to skip.

        Args:
            step: The number of the optimizer step, from 1.
            loss: Its loss.
            norm: The norm of its gradients. Pass 0 where the loss scaler checks the gradients.
            lr: Its learning rate.

        Raises:
            TrainingError: A number is not finite, and such steps are not skipped.
        """
        if torch.tensor([loss, norm]).isfinite().all():
            return True
        message = f"step {step}: loss {loss}, gradient norm {norm}, lr {lr:.3g}{self._rows()}"
        if not self.skip:
            raise TrainingError(
                f"{message}. The adapter was not updated. Lower model.lr, check these rows, or set "
                "model.on_nonfinite to skip"
            )
        self.skipped += 1
        print_rank0(f"{message}: skipped, {self.skipped} so far")
        return False

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop where the validation loss is not finite, unless such steps are skipped.

        Raises:
            TrainingError: It is not finite.
        """
        loss = float(trainer.callback_metrics["val/loss"])
        if torch.tensor(loss).isfinite():
            return
        step = trainer.global_step
        if step == 0:
            raise TrainingError(
                f"the validation loss of the base model is {loss}: try another trainer.precision"
            )
        if not self.skip:
            raise TrainingError(
                f"step {step}: the validation loss is {loss}. The best adapter so far is kept. "
                "Lower model.lr and start again"
            )
        print_rank0(f"step {step}  validation loss {loss}: not compared with the best")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print how many steps were skipped, and refuse an adapter that learned nothing.

        Raises:
            TrainingError: B of a layer is still zero.
        """
        if self.skipped:
            print_rank0(f"run    skipped {self.skipped} of {trainer.global_step} steps: not finite")
        layers = list(lora_layers(pl_module))
        if silent := [path for path, layer in layers if not layer.lora_B.any()]:
            raise TrainingError(
                f"B of {len(silent)} of {len(layers)} adapted layers is still zero after "
                f"{trainer.global_step} steps, for example {silent[0]}: these layers change "
                "nothing. Raise model.lr, or train longer"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.skipped = state_dict["skipped"]

    def _rows(self) -> str:
        if self.locate_rows is None:
            return ""
        rows = self.locate_rows()
        more = f" and {len(rows) - LISTED_ROWS} more" if len(rows) > LISTED_ROWS else ""
        return f", rows {', '.join(rows[:LISTED_ROWS])}{more}"


def check_gradients(model: nn.Module) -> None:
    """Check after the first backward pass that every adapted layer has a gradient.

    Raises:
        TrainingError: A layer has none, or zeros only.
    """
    silent = [
        path
        for path, layer in lora_layers(model)
        if layer.lora_B.grad is None or not layer.lora_B.grad.any()
    ]
    if silent:
        raise TrainingError(
            f"{len(silent)} adapted layers got no gradient in the first step, for example "
            f"{silent[0]}: they would never learn. Leave them out of model.lora.target_modules"
        )
