"""What every optimizer step must show: a gradient in each layer, and finite numbers."""

from typing import TYPE_CHECKING, Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from lit.run.console import print_rank0
from lora.inject import lora_layers, trainable_parameters

if TYPE_CHECKING:  # the module holds this callback
    from lit.train.module import LoRAModule


class TrainingError(RuntimeError):
    """Training cannot go on; the message says where it stands and what to try."""


class StepGuard(Callback):
    """Looks at a step's loss and gradients before the update, and logs them.

    A step whose numbers are not finite never changes the adapter: it ends the run, or it is skipped
    and counted.

    Args:
        skip: Whether it is skipped.
    """

    def __init__(self, skip: bool) -> None:
        self.skip = skip
        self.skipped = 0

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Check and log the step; drop the gradients of one that is skipped."""
        module = cast("LoRAModule", pl_module)
        if trainer.global_step == 0:
            _check_gradients(module)
        loss = trainer.strategy.reduce(module.take_step_loss(), reduce_op="sum")
        parameters = trainable_parameters(module.adapted_model).values()
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        lr = optimizer.param_groups[0]["lr"]
        # fp16's loss scaling meets infinite gradients by design and skips those steps itself.
        if not (loss.isfinite() and (norm.isfinite() or trainer.precision == "16-mixed")):
            self._refuse(trainer, float(loss), float(norm), lr)
            # An optimizer passes over what has no gradient, moments and all.
            for parameter in parameters:
                parameter.grad = None
        pl_module.log("train/loss", loss, prog_bar=True)
        pl_module.log("train/grad_norm", norm)
        pl_module.log("train/lr", lr)
        if trainer.global_step == 0 and trainer.log_every_n_steps > 1:  # type: ignore[attr-defined]
            # The first step says whether a run begins well; Lightning would wait for the n-th.
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss": float(loss)}, step=0)

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop where the validation loss is no number, unless such are skipped."""
        loss = float(trainer.callback_metrics["val/loss"])
        if torch.tensor(loss).isfinite():
            return
        step = trainer.global_step
        if step == 0:
            raise TrainingError(f"the base's validation loss is {loss}: try trainer.precision")
        if not self.skip:
            raise TrainingError(
                f"step {step}: the validation loss is {loss}. The best adapter before is kept. "
                "Lower model.lr, or begin anew"
            )
        print_rank0(f"step {step}  validation loss {loss}: not compared with the best")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say what was skipped; refuse an adapter that learned nothing."""
        module = cast("LoRAModule", pl_module)
        if self.skipped:
            print_rank0(
                f"run    {self.skipped} of {trainer.global_step} steps were skipped: not finite"
            )
        layers = list(lora_layers(module.adapted_model))
        silent = [path for path, layer in layers if not layer.lora_B.any()]
        if silent:
            raise TrainingError(
                f"B of {len(silent)} of {len(layers)} adapted layers is still zero after "
                f"{trainer.global_step} steps, {silent[0]} among them: they change nothing. "
                "Raise model.lr, or train longer"
            )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.skipped = state_dict["skipped"]

    def _refuse(self, trainer: L.Trainer, loss: float, norm: float, lr: float) -> None:
        places = trainer.datamodule.step_locations()  # type: ignore[attr-defined]
        shown = ", ".join(places[:8]) + (f" and {len(places) - 8} more" if places[8:] else "")
        numbers = (
            f"step {trainer.global_step + 1}: loss {loss}, gradient norm {norm}, lr {lr:.3g}, "
            f"rows {shown}"
        )
        if not self.skip:
            raise TrainingError(
                f"{numbers}. The adapter was not updated. Lower model.lr, look at these rows, or "
                "set model.on_nonfinite to skip"
            )
        self.skipped += 1
        print_rank0(f"{numbers}: skipped, {self.skipped} so far")


def _check_gradients(module: "LoRAModule") -> None:
    silent = [
        path
        for path, layer in lora_layers(module.adapted_model)
        if layer.lora_B.grad is None or not layer.lora_B.grad.any()
    ]
    if silent:
        raise TrainingError(
            f"{len(silent)} adapted layers got no gradient in the first step, {silent[0]} "
            "among them: they would never learn. Leave them out of model.lora.target_modules."
        )
