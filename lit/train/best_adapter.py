"""The best adapter of a run, kept in the run's folder."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from lit.run.folder import RunFolder
from lit.train.datamodule import QADataModule
from lit.train.module import LoRAModule
from lora.storage.adapter import save_adapter
from lora.storage.files import follow_umask, temporary_folder


class BestAdapter(Callback):
    """Keeps the best adapter by validation, or the last one without validation rows.

    Args:
        folder: The run's folder.
        data: The run's data; its tokenizer is saved beside the adapter.
        best_by: ``loss`` keeps the adapter with the lowest validation loss; ``matching`` that with
            the highest ``val/matching``, and of equal ones that with the lower loss.
    """

    STATE = ("base_loss", "loss", "matching", "step", "validated", "tensors")

    def __init__(self, folder: RunFolder, data: QADataModule, best_by: str = "loss") -> None:
        self.folder, self.data, self.best_by = folder, data, best_by
        self.base_loss = math.nan
        self.loss = math.inf
        self.matching = -math.inf
        self.step = 0
        self.validated = 0
        """The optimizer step of the last validation."""
        self.tensors: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the adapter if it is the best so far; the first validation measures the start."""
        loss = float(trainer.callback_metrics["val/loss"])
        self.validated = trainer.global_step
        if trainer.global_step == 0:
            self.base_loss = loss
            return
        matching = 0.0
        if self.best_by == "matching":
            matching = float(trainer.callback_metrics["val/matching"])
        # A loss of NaN is below none, whatever the matching.
        if loss < math.inf and (-matching, loss) < (-self.matching, self.loss):
            self.loss, self.matching, self.step = loss, matching, trainer.global_step
            state = pl_module.state_dict().items()
            self.tensors = {name: value.to("cpu", copy=True) for name, value in state}
            self.save(pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the best adapter so far: the folder may be empty, or hold one of later steps."""
        if not self.tensors:
            return
        now = {name: value.clone() for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict(self.tensors)
        self.save(pl_module)
        pl_module.load_state_dict(now)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last adapter where there are no validation rows."""
        if not self.data.val_rows.size:
            self.step = self.validated = trainer.global_step
            self.save(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the best adapter too, as the folder may be another."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        for name in self.STATE:
            # A checkpoint of an earlier version knows no matching: its best has the lowest loss.
            setattr(self, name, state_dict.get(name, 0.0))

    @rank_zero_only
    def save(self, pl_module: L.LightningModule) -> None:
        """Write the adapter as it is now."""
        assert isinstance(pl_module, LoRAModule)
        folder = self.folder.adapter
        folder.mkdir(parents=True, exist_ok=True)
        # The tokenizer carries the template, so that the folder alone says how to talk to it.
        with temporary_folder(folder / "tokenizer") as new:
            self.data.tokenizer.save_pretrained(new)
            follow_umask(new, new.stat().st_mode)
            for path in (path for path in new.rglob("*") if path.is_file()):
                target = folder / path.relative_to(new)
                target.parent.mkdir(exist_ok=True)
                path.replace(target)
        save_adapter(pl_module.adapted_model, folder, pl_module.base, pl_module.revision)
