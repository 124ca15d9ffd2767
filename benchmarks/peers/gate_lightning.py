"""The gate as a Lightning callback: --trainer.callbacks+=benchmarks.peers.gate_lightning.Gated"""

import lightning as L
from lightning.pytorch.callbacks import Callback

from benchmarks.peers.rows import digest
from benchmarks.peers.step_gate import StepGate
from data.planning.batch import separate
from data.types import Batch


class Gated(Callback):
    """Waits at the gate before each optimizer step; a step is one micro-batch."""

    def __init__(self) -> None:
        self.gate = StepGate()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Wait; the loss of the step before is logged by now."""
        self._report_loss(trainer)
        rows = separate(batch).input_ids[0].tolist()
        self.gate.begin_step(trainer.global_step, digest(rows))

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop counting."""
        self.gate.end_step(trainer.global_step - 1)

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Report the loss on held-out rows."""
        self.gate.report["val_loss"] = float(trainer.callback_metrics["val/loss"])

    def on_fit_end(self, trainer: L.Trainer, *_: object) -> None:
        """Wait once more, which reports the last step."""
        self._report_loss(trainer)
        self.gate.wait()

    def _report_loss(self, trainer: L.Trainer) -> None:
        if "train/loss" in trainer.callback_metrics:
            self.gate.report["loss"] = float(trainer.callback_metrics["train/loss"])
