"""Stop a run on SIGINT or SIGTERM without losing a step."""

import signal
from types import FrameType
from typing import NoReturn

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lit.messages import tr
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.lightning_internals import cluster_environment, step_ends
from lit.run.metrics import step_record


class StoppedError(Exception):
    """A signal stopped the run; the message says whether it was saved and how to resume it.

    Args:
        number: The signal.
        saved: Whether the run was saved.
    """

    def __init__(self, number: int, saved: bool) -> None:
        result = (
            tr("saved. Resume with the same command and --ckpt_path last")
            if saved
            else tr("stopped at once; earlier checkpoints are unchanged")
        )
        super().__init__(f"{signal.Signals(number).name}: {result}")
        self.exit_code = 128 + number


class StopOnSignal(Callback):
    """On SIGINT or SIGTERM, finishes the optimizer step, saves a checkpoint and stops the run.

    Stops at once before training starts, and on a second SIGINT. Handles signals inside a ``with``
    block.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.number: int | None = None
        """The signal that this process received."""
        self.training = self.announced = False

    def __enter__(self) -> "StopOnSignal":
        self.old_handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self._set_handlers()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)

    def on_train_start(self, trainer: L.Trainer, *_: object) -> None:
        """Replace Lightning's handler of SIGTERM, which would end the run without saving."""
        environment = cluster_environment(trainer)
        # When SLURM requeues a job, it sends SIGTERM beside the signal that Lightning acts on.
        if not (isinstance(environment, SLURMEnvironment) and environment.auto_requeue):
            self._set_handlers()
        self.training = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop at the end of an optimizer step."""
        self._announce()
        if not step_ends(trainer):
            return
        if (number := self._signal_of_any_rank(trainer)) is not None:
            # Lightning logs the step after this hook, which does not return.
            if record := step_record(trainer):
                for logger in trainer.loggers:
                    logger.log_metrics(record, trainer.global_step - 1)
            self._stop(trainer, number)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Stop in a validation, which may be long; a resumed run repeats it."""
        self._announce()
        if self.training and (number := self._signal_of_any_rank(trainer)) is not None:
            self._stop(trainer, number)

    def on_train_end(self, *_: object) -> None:
        """From now on, stop at once: every step is saved."""
        self.training = False

    def _signal_of_any_rank(self, trainer: L.Trainer) -> int | None:
        """Return the signal that any rank received, so that all stop at the same step."""
        if trainer.world_size == 1:
            return self.number
        number = torch.tensor(self.number or 0, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        return int(number) or None

    def _stop(self, trainer: L.Trainer, number: int) -> NoReturn:
        trainer.save_checkpoint(self.folder.last)
        raise StoppedError(number, saved=True)

    def _set_handlers(self) -> None:
        for number in self.old_handlers:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.training or (self.number is not None and number == signal.SIGINT):
            raise StoppedError(number, saved=False)
        # It may interrupt a print, or print to a closed pipe: the training loop prints instead.
        self.number = number

    def _announce(self) -> None:
        if self.number is not None and not self.announced:
            self.announced = True
            print_rank0(
                tr(
                    "{name}: stopping after this optimizer step",
                    name=signal.Signals(self.number).name,
                )
            )
