"""Which settings of a search can be told apart by the choosing rows.

Every pair of settings could have been the best and the next, so the intervals are widened until all
of them hold at once (Tukey's range): in 19 of 20 searches no equal settings are called worse.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lit.measures.intervals import MIN_ROWS, Interval, Z, intervals, student_t
from lit.searching.records import Search, Sums, Trial

DRAWS = 4000
LEAST_SPREAD = 1e-9
"""Of the largest spread of a pair; a pair with less has equal losses in every row."""


class Difference(NamedTuple):
    """A difference of mean losses per label, in nats; below zero the first has the lower loss.

    Args:
        value: The first minus the second.
        low, high: Its 95% interval over rows; None for too few rows.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Candidate:
    """Settings that can be compared, with the runs that have them.

    Args:
        runs: The trials with these settings that are compared, the lowest choosing loss first.
        loss: Mean loss per label of the choosing rows, the mean of the runs.
        to_best: Its difference to the lowest loss, with an interval that holds for all settings at
            once.
        tied: Whether it cannot be told apart from the settings with the lowest loss.
        losses: Those of the single runs, which differ in the seed alone.
    """

    runs: tuple[Trial, ...]
    loss: float
    to_best: Difference
    tied: bool
    losses: tuple[float, ...]

    @property
    def kept(self) -> Trial:
        """The first run, whose adapter is kept: it has the config's seed, so lit.fit repeats it."""
        return min(self.runs, key=lambda run: run.number)

    @property
    def settings(self) -> dict[str, Any]:
        """What the runs have in common."""
        return self.kept.settings

    @property
    def cost(self) -> tuple[int, int]:
        """Trainable parameters, and optimizer steps."""
        return max(run.parameters for run in self.runs), max(run.steps for run in self.runs)


def is_measured(trial: Trial) -> bool:
    """Return whether a trial ended by itself, with a finite loss for each choosing row."""
    sums = trial.choose
    return trial.state == "finished" and sums is not None and all(map(math.isfinite, sums))


def compared_trials(search: Search) -> list[Trial]:
    """Return the trials that are compared: those that ran the whole schedule, if there are some.

    A loss after a constant learning rate is no match for one after the whole schedule.
    """
    measured = [trial for trial in search.trials if is_measured(trial)]
    return [trial for trial in measured if trial.full_schedule] or measured


def candidates(search: Search, trials: Sequence[Trial]) -> list[Candidate]:
    """Return the settings of trials, those with the lowest loss on the choosing rows first.

    Args:
        search: For its rows.
        trials: Measured trials that can be compared; those with equal settings are averaged.
    """
    labels = np.array(search.choose_labels, float)
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.key, []).append(trial)
    runs = [sorted(group, key=lambda trial: sum(trial.choose or ())) for group in groups.values()]
    runs.sort(key=lambda group: (mean_sums([run.choose for run in group]).sum(), group[0].number))
    if not runs or not labels.sum():
        return []
    sums = np.array([mean_sums([run.choose for run in group]) for group in runs])
    to_best = differences(sums, sums[0], labels, simultaneous_factor(sums, labels))
    found = []
    for group, own, apart in zip(runs, sums, to_best, strict=True):
        losses = tuple(float(sum(run.choose or ()) / labels.sum()) for run in group)
        tied = apart.low is None or apart.low <= 0
        found.append(Candidate(tuple(group), float(own.sum() / labels.sum()), apart, tied, losses))
    return found


def cheapest(tied: Sequence[Candidate]) -> Candidate:
    """Return the settings with the fewest parameters, then steps, then the lowest loss."""
    return min(tied, key=lambda one: (*one.cost, one.loss))


def finalists(search: Search, most: int) -> list[Trial]:
    """Return the trials whose settings deserve the whole schedule, each settings once.

    They are the config's own settings, the best, the cheapest of those tied with it, and the next
    best ones.

    Args:
        search: With trials that did not run the whole schedule.
        most: How many are wanted, with the config's own.
    """
    screened = [x for x in search.trials if is_measured(x) and not x.full_schedule]
    found = candidates(search, screened)
    tied = [one for one in found if one.tied]
    ranked = [*found[:1], *([cheapest(tied)] if tied else []), *found[1:]]
    own = [one for one in found if any(run.number == search.own for run in one.runs)]
    return list({id(one): one.kept for one in [*own, *ranked]}.values())[:most]


def mean_sums(runs: Sequence[Sums | None]) -> np.ndarray:
    """Return the mean of the runs' losses of each row, (rows,)."""
    return np.array([run for run in runs if run is not None], float).mean(0)


def difference(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> Difference:
    """Return the paired difference of two mean losses per label.

    Args:
        first, second: (rows,) the loss sums of each row.
        labels: (rows,)
    """
    return differences(first[None], second, labels)[0]


def differences(
    sums: np.ndarray, other: np.ndarray, labels: np.ndarray, factor: float = 1.0
) -> list[Difference]:
    """Return the paired differences of many mean losses per label to one.

    Args:
        sums: (settings, rows) the loss sums of each row.
        other: (rows,) those to compare with.
        labels: (rows,)
        factor: How many times wider than a single 95% interval.
    """
    apart = sums - other
    values = apart.sum(1) / labels.sum()
    if len(labels) < MIN_ROWS:
        return [Difference(float(value), None, None) for value in values]
    low, high = intervals(apart, np.tile(labels, (len(sums), 1)))
    low, high = values + factor * (low - values), values + factor * (high - values)
    return [Difference(*map(float, each)) for each in zip(values, low, high, strict=True)]


def simultaneous_factor(sums: np.ndarray, labels: np.ndarray) -> float:
    """Return how many times wider the intervals of all pairs are that hold at once.

    The largest standardized difference of a pair is drawn from a normal distribution with the
    rows' own covariance: settings that do nearly the same widen nothing.

    Args:
        sums: (settings, rows) the loss of each row.
        labels: (rows,)
    """
    settings, rows = sums.shape
    if settings < 3 or rows < 3:
        return 1.0
    rest = sums - (sums.sum(1) / labels.sum())[:, None] * labels
    drawn = np.random.default_rng(0).standard_normal((DRAWS, rows)) @ rest.T
    largest = np.zeros(DRAWS)
    spread = np.array([np.sqrt(((rest[i] - rest) ** 2).sum(1)) for i in range(settings)])
    known = spread > LEAST_SPREAD * max(float(spread.max()), float(np.abs(sums).max()))
    for i in range(settings - 1):
        others = np.flatnonzero(known[i, i + 1 :]) + i + 1
        if len(others):
            ratios = np.abs(drawn[:, others] - drawn[:, [i]]) / spread[i, others]
            largest = np.maximum(largest, ratios.max(1))
    limit = max(Z, float(np.quantile(largest, 0.95)))
    return student_t(rows - 1, limit) / student_t(rows - 1)


def overlap(one: Difference, other: Difference) -> Interval | None:
    """Return the interval of one difference minus another of independent rows.

    The squared distances of the limits add up (Zou and Donner, 2008).
    """
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None
    value = one.value - other.value
    low = math.hypot(one.value - one.low, other.high - other.value)
    high = math.hypot(one.high - one.value, other.value - other.low)
    return Interval(value - low, value + high)
