"""Checkpoint files: written completely or not at all, and loaded without running code in them."""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit.messages import tr
from lit.resume.manifest import Manifest
from lit.run.lightning_internals import save_last_step, step_ends
from lora.config import ConfigError
from lora.storage.files import PREFIX


class AtomicCheckpointIO(TorchCheckpointIO):
    """Saves by writing a file beside the destination and renaming it; loads with weights_only."""

    def __init__(self) -> None:
        self.manifests: dict[Path, Manifest] = {}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; the old file stays until the new one is on the disk."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest = self.manifests.setdefault(path.parent, Manifest(path.parent))
        # The base class renames only if $TMPDIR is on the same file system.
        with manifest.replacing(path) as new, new.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a local file, always with weights_only.

        Raises:
            ConfigError: The file is incomplete, has changed since it was written, or is not local.
        """
        if "://" in str(path):
            raise ConfigError(tr("{path}: checkpoints are not loaded from the network", path=path))
        try:
            loaded = torch.load(path, map_location=map_location, weights_only=True)
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                tr("{path} is not a complete checkpoint: {reason}", path=path, reason=reason)
            ) from None
        Manifest(Path(path).parent).check(Path(path))
        return loaded


def check_space(folder: Path, size: int, files: int) -> None:
    """Check that files of a size can be written, by allocating one and counting the free space.

    Args:
        folder: Created if missing.
        size: Size of a file, in bytes.
        files: Number of files that exist at the same time.

    Raises:
        OSError: The disk is too full, the size is over the limit for files, or the folder cannot
            be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size * files:
        raise OSError(
            errno.ENOSPC,
            tr(
                "{free:.1f} MB are free, and {files} checkpoints need at least {size:.1f} MB. "
                "Free disk space, or lower checkpoint.save_top_k or model.lora.r",
                free=free / 1e6,
                files=files,
                size=size * files / 1e6,
            ),
            str(folder),
        )
    try:
        with tempfile.TemporaryFile(dir=folder, prefix=PREFIX) as file:
            _allocate(file.fileno(), max(size, 1))
    except OSError as error:
        # The file system cannot allocate a file before it is written.
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            reason = os.strerror(error.errno or 0)
            raise OSError(
                error.errno,
                tr("{reason}: no room for a checkpoint of {size} bytes", reason=reason, size=size),
                str(folder),
            ) from None


def _allocate(descriptor: int, size: int) -> None:
    """Give a file its size, with space on the disk where the system can reserve it.

    Linux reserves it. Windows does when a file grows. macOS reserves nothing, and only refuses a
    size over the limit for files.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which also saves the last step and checks the free space.

    Args:
        best_by: Which adapter of the run is the best: that of the lowest validation ``loss``, or of
            the highest ``matching``, which needs ``data.val_matching``.
        arguments: Those of ModelCheckpoint.
    """

    def __init__(
        self, *arguments: Any, best_by: Literal["loss", "matching"] = "loss", **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.best_by = best_by

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that the checkpoints fit on the disk.

        Raises:
            OSError: They do not fit.
        """
        super().on_train_start(trainer, pl_module)
        trained = sum(p.numel() * p.element_size() for p in pl_module.state_dict().values())
        if trainer.is_global_zero and self.dirpath:
            # The new last.ckpt, the old one, and the best; each also holds the best adapter.
            # The optimizer's state is not counted: with sgd it is small.
            check_space(Path(self.dirpath), 2 * trained, max(self.save_top_k, 0) + 2)

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        """Save at the end of an interval, never between the micro-batches of an optimizer step."""
        # A checkpoint holds no gradients, so those of a part of a step would be lost.
        if step_ends(trainer):
            super().on_train_batch_end(trainer, *arguments)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the steps after the last interval."""
        save_last_step(self, trainer)
        super().on_train_end(trainer, pl_module)
