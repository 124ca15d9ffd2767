"""Stopping by a signal, so that nothing is lost."""

import signal
from types import FrameType
from typing import NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.lightning_internals import cluster_environment, step_ends
from lit.run.metrics import step_record


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
        environment = cluster_environment(trainer)
        # Under SLURM with requeueing SIGTERM comes beside the signal that Lightning acts on.
        if not (isinstance(environment, SLURMEnvironment) and environment.auto_requeue):
            self._listen()
        self.training = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop at the end of an optimizer step."""
        if not step_ends(trainer):
            return
        if (number := self._shared(trainer)) is not None:
            # Lightning logs a step after this hook, which is not left this time.
            if record := step_record(trainer):
                for logger in trainer.loggers:
                    logger.log_metrics(record, trainer.global_step - 1)
            self._stop(trainer, number)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop amid a validation too: it may be long, and a resumed run begins it anew."""
        if self.training and (number := self._shared(trainer)) is not None:
            self._stop(trainer, number)

    def on_train_end(self, *_: object) -> None:
        """From here on nothing is lost by stopping."""
        self.training = False

    def _shared(self, trainer: L.Trainer) -> int | None:
        """The signal that any rank got: all stop at the same step."""
        if trainer.world_size == 1:
            return self.number
        number = torch.tensor(self.number or 0, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        return int(number) or None

    def _stop(self, trainer: L.Trainer, number: int) -> NoReturn:
        trainer.save_checkpoint(self.folder.last)
        raise StoppedError(number, saved=True)

    def _listen(self) -> None:
        for number in self.before:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.training or (self.number is not None and number == signal.SIGINT):
            raise StoppedError(number, saved=False)
        self.number = number
        print_rank0("stopping after this optimizer step …")
