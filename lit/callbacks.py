"""What happens beside training: speed, lines for a pipe, the best adapter."""

import math
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from data.types import Batch
from lit.folder import RunFolder
from lit.module import LoRAModule
from lora.adapter import save_adapter


class Throughput(Callback):
    """Logs ``train/tokens_per_s``: tokens of an optimizer step on all ranks, validation aside."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self, *_: object) -> None:
        self.tokens, self.since = 0, time.perf_counter()

    on_train_start = on_validation_end = _begin  # type: ignore[assignment]

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count, and log where an optimizer step ends."""
        self.tokens += batch.input_ids.numel()
        if trainer.fit_loop._should_accumulate():
            return
        rate = self.tokens * trainer.world_size / (time.perf_counter() - self.since)
        pl_module.log("train/tokens_per_s", rate, prog_bar=True)
        self._begin()


class Lines(Callback):
    """Progress in lines, for a pipe or a log file, where a bar cannot be drawn."""

    def __init__(self, lines: int = 20) -> None:
        self.lines = lines
        self.printed = -1

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Print about ``lines`` lines a run, at ends of optimizer steps."""
        total = trainer.datamodule.total_steps()  # type: ignore[attr-defined]
        step = trainer.global_step
        every = max(1, total // self.lines)
        if step == self.printed or (step % every and step != total):
            return
        self.printed = step
        values = trainer.callback_metrics
        self._print(
            f"step {step}/{total}  loss {values.get('train/loss', math.nan):.3f}  "
            f"{values.get('train/tokens_per_s', math.nan):.0f} tokens/s"
        )

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Print the validation loss."""
        loss = trainer.callback_metrics.get("val/loss", torch.tensor(math.nan))
        self._print(f"step {trainer.global_step}  validation loss {loss:.4f}")

    @rank_zero_only
    def _print(self, line: str) -> None:
        print(line, flush=True)


class BestAdapter(Callback):
    """Keeps the adapter with the lowest validation loss in the run's folder.

    Without validation rows it keeps the last.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.loss = math.inf
        self.step = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if this is the best so far; the base's own loss, before training, is not."""
        loss = float(trainer.callback_metrics["val/loss"])
        if trainer.state.fn == "fit" and not trainer.sanity_checking and loss < self.loss:
            self.loss, self.step = loss, trainer.global_step
            self._save(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last if there was no validation."""
        if math.isinf(self.loss):
            self.step = trainer.global_step
            self._save(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, for a resumed run."""
        return {"loss": self.loss, "step": self.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.loss, self.step = state_dict["loss"], state_dict["step"]

    @rank_zero_only
    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, LoRAModule)
        assert pl_module.model is not None
        save_adapter(pl_module.model, self.folder.adapter, pl_module.base, pl_module.revision)
        # With its template the folder says how to talk to the adapter.
        trainer.datamodule.tokenizer.save_pretrained(self.folder.adapter)  # type: ignore[attr-defined]
