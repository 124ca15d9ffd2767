"""Checkpoints: written whole or not at all, read without running anything in them; stopping."""

import os
import signal
import tempfile
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO

from lit.console import say
from lit.folder import RunFolder
from lora.config import ConfigError


class WholeCheckpointIO(TorchCheckpointIO):
    """Saves beside the destination and renames; loads tensors and plain values only."""

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
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a local file, always with weights_only."""
        if "://" in str(path):
            raise ConfigError(f"{path}: checkpoints are not loaded from the network")
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ConfigError(f"{path} is not a whole checkpoint: {error}") from None


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint: the newest few, and last.ckpt, which is there at the end too."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what was trained after the last interval."""
        if trainer.global_step != self._last_global_step_saved:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        super().on_train_end(trainer, pl_module)


class StoppedError(Exception):
    """A signal ended the run; the message says whether it was saved and how to go on."""

    def __init__(self, number: int, saved: bool) -> None:
        how = (
            "saved. Go on with the same command and --ckpt_path last"
            if saved
            else "stopped at once; what was saved before is as it was"
        )
        super().__init__(f"{signal.Signals(number).name}: {how}")
        self.number = number


class StopOnSignal(Callback):
    """On SIGINT or SIGTERM finishes the optimizer step, saves, and ends the run.

    Before training begins, and on a second SIGINT, it ends at once. Listens in a ``with`` block.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.number: int | None = None
        self.training = False

    def __enter__(self) -> "StopOnSignal":
        self.before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def on_train_start(self, trainer: L.Trainer, *_: object) -> None:
        """Take SIGTERM back from Lightning, which would end the run without saving."""
        environment = trainer._accelerator_connector.cluster_environment
        # Under SLURM with requeueing SIGTERM comes beside the signal that Lightning acts on.
        if not (isinstance(environment, SLURMEnvironment) and environment.auto_requeue):
            self._listen()
        self.training = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop at the end of an optimizer step."""
        if self.number is None or trainer.fit_loop._should_accumulate():
            return
        # Lightning logs a step after this hook, which is not left this time.
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("train")}
        for logger in trainer.loggers:
            logger.log_metrics(values, trainer.global_step - 1)
        trainer.save_checkpoint(self.folder.last)
        raise StoppedError(self.number, saved=True)

    def on_train_end(self, *_: object) -> None:
        """From here on nothing is lost by stopping."""
        self.training = False

    def _listen(self) -> None:
        for number in self.before:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.training or (self.number is not None and number == signal.SIGINT):
            raise StoppedError(number, saved=False)
        self.number = number
        say("stopping after this optimizer step …")
