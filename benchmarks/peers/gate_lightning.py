"""The gate as a callback: --trainer.callbacks+=benchmarks.peers.gate_lightning.Gated"""

import os
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from benchmarks.peers.flops import Flops
from benchmarks.peers.gate import Gate
from benchmarks.peers.rows import digest
from data.types import Batch


class Gated(Callback):
    """Asks before each optimizer step; counts the first one's arithmetic where it is to."""

    def __init__(self) -> None:
        self.gate = Gate.from_environment()
        self.flops = Flops() if os.environ.get("LIT_LORA_BENCHMARK_FLOPS") else None
        self.report: dict[str, Any] = {}

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Ask; the loss of the step before is logged by now."""
        self._ask(trainer)
        self.report = {"rows": digest(batch.input_ids[0].tolist())}
        if trainer.global_step == 0 and self.flops:
            self.flops.begin()

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop counting."""
        if trainer.global_step == 1 and self.flops:
            self.report["flops"] = self.flops.end()

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Note what the held-out rows cost."""
        self.report["val_loss"] = float(trainer.callback_metrics["val/loss"])

    def on_fit_end(self, trainer: L.Trainer, *_: object) -> None:
        """Ask once more: the last step is over."""
        self._ask(trainer)

    def _ask(self, trainer: L.Trainer) -> None:
        if "train/loss" in trainer.callback_metrics:
            self.report["loss"] = float(trainer.callback_metrics["train/loss"])
        self.gate.step(**self.report)
