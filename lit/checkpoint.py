"""Checkpoints: written whole or not at all, and read without running anything in them."""

import os
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit.manifest import Manifest
from lora.config import ConfigError


class WholeCheckpointIO(TorchCheckpointIO):
    """Saves beside the destination and renames; loads tensors and plain values only."""

    def __init__(self) -> None:
        self.manifests: dict[Path, Manifest] = {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write the file; until it is on the disk, the one before stays."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The base class renames only where $TMPDIR is on the same file system.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            manifest = self.manifests.setdefault(path.parent, Manifest(path.parent))
            manifest.place(Path(temporary), path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a local file, always with weights_only.

        Raises:
            ConfigError: It is not whole, not what was written, or not local.
        """
        if "://" in str(path):
            raise ConfigError(f"{path}: checkpoints are not loaded from the network")
        try:
            loaded = torch.load(path, map_location=map_location, weights_only=True)
        except OSError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"{path} is not a whole checkpoint: {reason}") from None
        Manifest(Path(path).parent).check(Path(path))
        return loaded


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint: the newest few, and last.ckpt, which is there at the end too."""

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        """Save where an interval ends, never between the micro-batches of a step."""
        # A gradient that is half summed is in no checkpoint.
        if not trainer.fit_loop._should_accumulate():
            super().on_train_batch_end(trainer, *arguments)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what was trained after the last interval."""
        if trainer.global_step != self._last_global_step_saved:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        super().on_train_end(trainer, pl_module)
