"""Validation by optimizer steps, where Lightning counts micro-batches."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from lit.run.lightning_internals import step_ends


class ValidationSchedule(Callback):
    """Validates after every n-th optimizer step of the run, and at no other time.

    Steps are counted over the ends of epochs and by the run, not by the process that resumed it. A
    step at the end of an epoch may have fewer micro-batches, so no interval in micro-batches does
    the same.

    Args:
        every: Optimizer steps from one validation to the next.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Tell the training loop whether to validate after this micro-batch."""
        due = step_ends(trainer) and (trainer.global_step + 1) % self.every == 0
        # Lightning validates after the micro-batches of an epoch whose number this divides. It is
        # set before the micro-batch, because a checkpoint after it holds whether one is due.
        trainer.val_check_batch = 1 if due else int(trainer.num_training_batches) + 1


def validation_schedule(trainer: L.Trainer) -> list[ValidationSchedule]:
    """Return the callback that the data module asks for with ``val_every_n_steps``, or none."""
    every = getattr(getattr(trainer, "datamodule", None), "val_every_n_steps", None)
    return [] if every is None else [ValidationSchedule(every)]
