"""Checkpoints: written whole or not at all, and read without running anything in them."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit.resume.manifest import Manifest
from lit.run.lightning_internals import save_last_step, step_ends
from lora.config import ConfigError


class AtomicCheckpointIO(TorchCheckpointIO):
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
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"{path} is not a whole checkpoint: {reason}") from None
        Manifest(Path(path).parent).check(Path(path))
        return loaded


def check_space(folder: Path, size: int, files: int) -> None:
    """Look whether files of a size can be written, by holding the room for one and counting.

    Args:
        folder: Made where it is not.
        size: Bytes of a file.
        files: How many there will be at once.

    Raises:
        OSError: The disk is too full, a file may not be so large, or nothing may be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size * files:
        need = f"{files} checkpoints take {size * files / 1e6:.1f} MB at least"
        raise OSError(
            errno.ENOSPC,
            f"{free / 1e6:.1f} MB are free, and {need}. Free some, or lower "
            "checkpoint.save_top_k or model.lora.r",
            str(folder),
        )
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            reason = f"{os.strerror(error.errno or 0)}: no room for a checkpoint of {size} bytes"
            raise OSError(error.errno, reason, str(folder)) from None


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint: the newest few, and last.ckpt, which is there at the end too."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look whether the checkpoints will find room.

        Raises:
            OSError: They will not.
        """
        super().on_train_start(trainer, pl_module)
        trained = sum(p.numel() * p.element_size() for p in pl_module.state_dict().values())
        if trainer.is_global_zero and self.dirpath:
            # The new last.ckpt beside the old one, and those that are kept; each with the best
            # adapter. What the optimizer keeps is not counted: it may be little.
            check_space(Path(self.dirpath), 2 * trained, max(self.save_top_k, 0) + 2)

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        """Save where an interval ends, never between the micro-batches of a step."""
        # A gradient that is half summed is in no checkpoint.
        if step_ends(trainer):
            super().on_train_batch_end(trainer, *arguments)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what was trained after the last interval."""
        save_last_step(self, trainer)
        super().on_train_end(trainer, pl_module)
