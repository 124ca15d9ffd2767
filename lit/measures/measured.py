"""One number of both models with its interval, and what may be said of it."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np

from lit.measures.intervals import Interval, paired_interval, rows_that_would_show
from lit.messages import tr_mark

LEAST_LOSS = 0.005
"""Nats per token, half a percent of the perplexity.

Two models that are nearly equal differ in the same direction on every row, so an interval shows
differences that mean nothing.
"""


class Outcome(StrEnum):
    """What an interval says of the tuned model."""

    BETTER = tr_mark("better")
    WORSE = tr_mark("worse")
    NOT_SHOWN = tr_mark("not shown")
    TOO_SMALL = tr_mark("too small to matter")
    TOO_FEW = tr_mark("too few rows")
    NOT_FINITE = tr_mark("not finite")
    NOT_MEASURED = tr_mark("not measured")


class Group(StrEnum):
    """The question that a measure answers."""

    STYLE = tr_mark("manner")
    MATCHING = tr_mark("matching")
    TRUTH = tr_mark("truth")
    WRITTEN = tr_mark("as written")
    CONDUCT = tr_mark("conduct")
    FORGETTING = tr_mark("forgetting")
    OWN = tr_mark("own measure")


@dataclass(frozen=True)
class Measured:
    """A mean over rows under both models.

    Args:
        group: The question that it answers.
        name: What is measured.
        base, tuned: The means.
        low, high: The 95% interval of tuned minus base; None for fewer rows than an interval needs.
        rows: Rows that were measured.
        better: Which direction is good.
        share: Whether the numbers are shares, to be shown as percentages.
        chance: What guessing gives; None if that has no meaning.
        least: The smallest difference that matters, however surely it is shown.
    """

    group: Group
    name: str
    base: float
    tuned: float
    low: float | None
    high: float | None
    rows: int
    better: Literal["lower", "higher"]
    share: bool = False
    chance: float | None = None
    least: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """What the interval says."""
        if not all(map(math.isfinite, (self.base, self.tuned))):
            return Outcome.NOT_FINITE
        if self.low is None or self.high is None:
            return Outcome.TOO_FEW
        if not math.isfinite(self.low + self.high):
            return Outcome.NOT_FINITE
        if not Interval(self.low, self.high).excludes_zero:
            return Outcome.NOT_SHOWN
        if abs(self.tuned - self.base) < self.least:
            return Outcome.TOO_SMALL
        return Outcome.BETTER if (self.high < 0) == (self.better == "lower") else Outcome.WORSE

    @property
    def rows_needed(self) -> int | None:
        """How many rows would show a difference as large as the one seen."""
        if self.outcome is not Outcome.NOT_SHOWN or self.low is None or self.high is None:
            return None
        interval = Interval(self.low, self.high)
        return rows_that_would_show(self.tuned - self.base, interval, self.rows)


def measure(
    group: Group,
    name: str,
    base: np.ndarray,
    tuned: np.ndarray,
    better: Literal["lower", "higher"],
    *,
    binary: bool = False,
    share: bool = False,
    chance: float | None = None,
) -> Measured:
    """Return the mean over rows with its paired interval.

    Args:
        group, name, better, share, chance: As in ``Measured``.
        base, tuned: (rows,) the values of each row, at least one.
        binary: Every value is 0 or 1.
    """
    base, tuned = np.asarray(base, float), np.asarray(tuned, float)
    interval = paired_interval(tuned - base, binary=binary)
    low, high = interval or (None, None)
    means = float(base.mean()), float(tuned.mean())
    return Measured(group, name, *means, low, high, len(base), better, share or binary, chance)
