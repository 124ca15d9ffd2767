"""What a trial is told while it trains: to end where it diverges, is behind, or is out of time."""

from collections.abc import Callable, Sequence

from lit.messages import tr
from lit.searching.records import Point
from lit.searching.trials.halving import stops
from lit.searching.trials.ledger import Job, Ledger
from lit.searching.trials.watch import TrialEnded

DIVERGED = 2.0
"""A validation loss of so many times the base's."""


class Limits:
    """The limits of one trial.

    Args:
        ledger: Is told of its validations, and that it is alive.
        job: What it trains.
        others: The losses of the validations of each other try.
        base: The base's loss on the choosing rows.
        seconds: How long it may take.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        ledger: Ledger,
        job: Job,
        others: Sequence[Sequence[float]],
        base: float,
        seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self.ledger, self.job, self.others, self.base = ledger, job, others, base
        self.seconds, self.clock, self.since = seconds, clock, clock()
        self.losses: list[float] = []
        self.steps, self.start = 0, 0.0
        """The steps so far, and the seconds to the end of the first one."""

    def on_step(self, step: int) -> None:
        """Look at the time.

        Raises:
            LostTrialError, TrialEnded: The trial ends.
        """
        used = self.clock() - self.since
        self.steps, self.start = step, self.start if self.steps else used
        self.ledger.beat()
        if used > self.seconds:
            raise TrialEnded("stopped early", tr("its time had ended"))

    def on_loss(self, point: Point) -> None:
        """Look at a validation.

        Raises:
            LostTrialError, TrialEnded: The trial ends.
        """
        self.losses.append(point.loss)
        self.ledger.report(len(self.losses), point.loss)
        if not point.loss < DIVERGED * self.base:
            raise TrialEnded(
                "failed",
                tr(
                    "diverged: the validation loss is {loss:.3f}, the base's is {base:.3f}. A "
                    "lower model.lr may train",
                    loss=point.loss,
                    base=self.base,
                ),
            )
        if self.job.kind == "try" and stops(self.others, self.losses):
            raise TrialEnded(
                "stopped early",
                tr("other trials had a lower loss at step {step}", step=point.step),
            )
