"""What a search does next, and what fits into its time."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lit.searching.finals import EPOCHS, Finals, Shares
from lit.searching.planner import Planner
from lit.searching.trials.costs import Costs
from lit.searching.trials.halving import RUNGS, expected_validations
from lit.searching.trials.ledger import Job, Slot

LEAST_RUNS = 2.5
"""Whole runs that a budget must have time for, so that settings can be compared."""


class Forecast(NamedTuple):
    """What is still to come: tries, whole runs after them, and the seconds of both."""

    tries: int
    runs: int
    seconds: float


def divide(runs: float) -> Shares:
    """Return how to divide a budget of so many whole runs, the config's own among them."""
    if runs < LEAST_RUNS:
        return Shares(0, 1)
    if runs < 5:
        return Shares(1, 1)
    return Shares(1 if runs < 10 else 2 if runs < 20 else 3, 2)


def divide_trials(trials: int) -> Shares:
    """Return how many final runs follow so many trials, the config's own among them."""
    if trials < 2:
        return Shares(0, 1)
    return Shares(1 if trials < 8 else 2 if trials < 20 else 3, 2)


class Schedule:
    """Decides which trial comes next.

    Args:
        planner: Suggests settings.
        trials: How many settings are tried, the config's own among them; None for a budget.
        seconds_left: Returns what is left of the budget; infinite if trials are counted.
        finals: Orders the whole runs that follow the tries.
    """

    def __init__(
        self,
        planner: Planner,
        trials: int | None,
        seconds_left: Callable[[], float],
        finals: Finals,
    ) -> None:
        self.planner, self.trials, self.seconds_left = planner, trials, seconds_left
        self.finals, self.own = finals, finals.own
        self.costs = Costs(0.0, 0.0, 0.0, 0, 0)
        self.shares = Shares(0, 1)

    def plan(self, costs: Costs, seconds: float) -> None:
        """Divide the time by what a run takes.

        Args:
            costs: What trials take.
            seconds: The budget without what is used for other things than trials.
        """
        self.costs, before = costs, self.shares
        counted = self.trials is not None
        self.shares = divide_trials(self.trials or 0) if counted else divide(seconds / costs.run)
        if before.finals and not self.shares.finals:
            # The machine became slower; what time is left still compares something.
            self.shares = Shares(1, 1)

    def forecast(self, slots: Sequence[Slot]) -> Forecast:
        """Return what will follow after the config's own settings and the trials so far."""
        left, run = self.seconds_left(), self.costs.run
        left -= 0.0 if slots else run
        runs = max(0, self.shares.runs - sum(slot.job.kind == "final" for slot in slots))
        done = sum(slot.job.kind == "try" for slot in slots)
        most = self.planner.space.others - done
        if self.trials is not None:
            most = min(most, self.trials - 1 - done)
        elif runs < self.shares.runs or not runs:
            most = 0
        left_to_try = left - runs * run - self.costs.validation
        tries, seconds = 0, 0.0
        while tries < most and left_to_try - seconds > self._least(done + tries):
            tries += 1
            seconds += self.costs.of_try(expected_validations(done + tries))
        if not done + tries:
            runs = 0
        elif not tries and not math.isinf(left):
            runs = min(runs, int(left / run))
        return Forecast(tries, runs, seconds + runs * run)

    def next(self, slots: Sequence[Slot]) -> tuple[int, Job] | None:
        """Return the number and the content of the next trial; None if nothing is left to do."""
        for slot in slots:
            if slot.trial is None and not slot.running:
                return slot.number, slot.job
        number = len(slots)
        if not number:
            return number, self.own
        tries = [slot for slot in slots if slot.job.kind == "try"]
        finals = any(slot.job.kind == "final" for slot in slots)
        more = not finals and self._another_try(tries)
        if more and (settings := self.planner.suggest(_tried(tries))):
            return number, Job("try", settings, self.own.seed)
        known = [(slot.job.settings, slot.job.seed) for slot in slots if slot.job.kind != "try"]
        failed = [
            slot.job.settings for slot in slots if slot.trial and slot.trial.state == "failed"
        ]
        for job in self.finals.jobs(slots, self.shares):
            if job.settings in failed:
                continue
            if (job.settings, job.seed) not in known and self._fits(job):
                return number, job
        return None

    def deadline(self, job: Job) -> float:
        """Return the seconds after which a trial must end, from now."""
        reserved = self.shares.runs * self.costs.run if job.kind == "try" else 0.0
        return self.seconds_left() - reserved - self.costs.validation

    def _another_try(self, tries: Sequence[Slot]) -> bool:
        if self.trials is not None:
            return len(tries) < self.trials - 1
        time = self.deadline(Job("try", {}, 0))
        return self.shares.finals > 0 and time > self._least(len(tries))

    def _least(self, tries: int) -> float:
        """Return the seconds that another try needs: to its first comparison, if there are others.

        Args:
            tries: The tries so far.
        """
        return self.costs.of_try(RUNGS[0] if tries else 1)

    def _fits(self, job: Job) -> bool:
        epochs, own = job.settings.get(EPOCHS), self.own.settings.get(EPOCHS)
        share = epochs / own if epochs and own else 1.0
        return self.seconds_left() >= share * self.costs.run


def _tried(tries: Sequence[Slot]) -> list[tuple[dict[str, Any], tuple[float, ...] | None]]:
    """Return the settings and the losses of each try; a failed one counts as the worst."""
    failed = [slot.trial is not None and slot.trial.state == "failed" for slot in tries]
    return [
        (slot.job.settings, None if slot.running else () if bad else slot.losses)
        for slot, bad in zip(tries, failed, strict=True)
    ]
