"""What ends a trial before its last step, and what ends a search: the budget, and signals."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from lit.messages import tr
from lit.run.lightning_internals import step_ends
from lit.searching.records import Point, State


class TrialEnded(Exception):
    """A trial ends before its last step.

    Args:
        state: What it is then.
        reason: Why, for the person to read.
    """

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state: State = state


class StoppedSearchError(Exception):
    """A signal stopped the search; the trial that was running is run again by the next command.

    Args:
        number: The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(
            tr(
                "{signal}: stopped. The same command goes on from here",
                signal=signal.Signals(number).name,
            )
        )
        self.number, self.exit_code = number, 128 + number


class Signals:
    """Notes SIGINT and SIGTERM inside a ``with`` block; raises at once where no trial trains.

    A second SIGINT raises too.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.training = False

    def __enter__(self) -> "Signals":
        self.old_handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        self.set_handlers()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.old_handlers.items():
            signal.signal(number, handler)

    def set_handlers(self) -> None:
        """Handle the signals; Lightning sets a handler of its own when a training starts."""
        for number in self.old_handlers:
            signal.signal(number, self._handle)

    def check(self) -> None:
        """Raise if a signal came.

        Raises:
            StoppedSearchError: One came.
        """
        if self.number is not None:
            raise StoppedSearchError(self.number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.number is not None and number == signal.SIGINT
        self.number = number
        if again or not self.training:
            raise StoppedSearchError(number)


class Watch(Callback):
    """Calls functions at the ends of optimizer steps and of validations; they may end the trial.

    Args:
        signals: Whether the search is to end.
        on_step: Called with the number of steps.
        on_loss: Called with each validation's point.
    """

    def __init__(
        self,
        signals: Signals,
        on_step: Callable[[int], None] = lambda _: None,
        on_loss: Callable[[Point], None] = lambda _: None,
    ) -> None:
        self.signals, self.on_step, self.on_loss = signals, on_step, on_loss
        self.curve: list[Point] = []
        self.steps_of_epoch = 1

    def on_train_start(self, *_: Any) -> None:
        """Take the signals back from Lightning."""
        self.signals.set_handlers()
        self.signals.training = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Tell of an optimizer step."""
        if step_ends(trainer):
            self.signals.check()
            self.on_step(trainer.global_step)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Look for a signal: a validation may be long."""
        self.signals.check()

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Tell of a validation."""
        if step := trainer.global_step:
            loss = float(trainer.callback_metrics["val/loss"])
            self.curve.append(Point(step, step / self.steps_of_epoch, loss))
            self.on_loss(self.curve[-1])
