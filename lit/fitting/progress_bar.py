"""Progress of a run on a terminal: one line, of any width and in any encoding."""

from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.progress import Progress, TaskID

from lit.fitting.progress import time_left, values_of_step
from lit.messages import tr
from lit.run.console import is_rank0
from lit.run.lightning_internals import step_ends
from lit.run.progress import LEAST_BAR, fitting, make_progress


class ProgressBar(Callback):
    """Draws the optimizer steps of the run, and below it the batches of a validation.

    Args:
        total_steps: Returns the optimizer steps of the run; called when training starts.
        name: What is counted; None for steps.
        values: Returns what is shown beside loss and speed; None for the time to the end.
    """

    def __init__(
        self,
        total_steps: Callable[[], int],
        name: str | None = None,
        values: Callable[[], list[str]] | None = None,
    ) -> None:
        self.total_steps, self.name, self.values = total_steps, name or tr("step"), values
        self._progress: Progress | None = None
        self._validation: TaskID | None = None

    def on_train_start(self, trainer: L.Trainer, *_: object) -> None:
        """Start the bar of the run."""
        self._total, self._first = self.total_steps(), trainer.global_step
        self._training = self._bar().add_task(self.name, total=self._total, values="")
        self._bar().update(self._training, completed=self._first, refresh=True)
        self._started = time_left(self._first, self._total)

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Advance at the end of an optimizer step."""
        if step_ends(trainer):
            step = trainer.global_step
            more = self.values() if self.values else [self._started(step)]
            room = self._bar().console.width - len(f"{self.name} {step}/{self._total}")
            values = fitting([values_of_step(trainer), *more], room - LEAST_BAR - 2)
            self._bar().update(self._training, completed=step, values=values, refresh=True)

    def on_validation_start(self, trainer: L.Trainer, *_: object) -> None:
        """Start the bar of a validation."""
        batches = sum(int(count) for count in trainer.num_val_batches)
        self._validation = self._bar().add_task(tr("validation"), total=batches, values="")
        self._bar().refresh()

    def on_validation_batch_end(self, *_: object) -> None:
        """Advance by a batch."""
        if self._validation is not None:
            self._bar().update(self._validation, advance=1, refresh=True)

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Remove the bar of the validation."""
        if self._validation is not None:
            self._bar().remove_task(self._validation)
            self._bar().refresh()
            self._validation = None
        if trainer.state.fn != "fit":
            self._end()

    def on_train_end(self, *_: object) -> None:
        """Remove the bar."""
        self._end()

    def on_exception(self, *_: Any) -> None:
        """Remove the bar before an error is printed."""
        self._end()

    def _bar(self) -> Progress:
        if self._progress is None:
            self._progress = make_progress()
            if is_rank0():
                self._progress.start()
        return self._progress

    def _end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
