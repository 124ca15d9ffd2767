"""Paired differences of mean losses, of two settings and of many at once, and what seeds change."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from lit.measures.intervals import MIN_ROWS, Interval, Z, intervals, student_t

DRAWS, SEED_DRAWS = 4000, 20_000
LEAST_SPREAD = 1e-9
"""Of the largest spread of a pair; a pair with less has equal losses in every row."""


class Difference(NamedTuple):
    """A difference of mean losses per label, in nats; below zero the first has the lower loss.

    Args:
        value: The first minus the second.
        low, high: Its 95% interval; None for too few rows.
    """

    value: float
    low: float | None
    high: float | None

    def widened(self, reach: float) -> "Difference":
        """Return it with an interval that holds an independent chance of ``reach`` nats, too.

        The squared distances of the limits add up.
        """
        if self.low is None or self.high is None:
            return self
        low = self.value - math.hypot(self.value - self.low, reach)
        return Difference(self.value, low, self.value + math.hypot(self.high - self.value, reach))


class SeedSpread(NamedTuple):
    """How differently a seed changes the losses of settings.

    A seed draws the order of the rows and the first values of the adapter. What it changes for all
    settings alike, as an unlucky order does, tells nothing of their differences and is left out.

    Args:
        value: The standard deviation of a run, in nats per label; nan where it is not known.
        freedom: Its degrees of freedom; 0 until two settings ran with the same two seeds.
    """

    value: float
    freedom: int

    def reach(self, one: int, other: int, counts: Sequence[int]) -> float:
        """Return how far chance of the seed alone moves two mean losses apart, in nats.

        In 19 of 20 searches no two of equal settings are further apart; 0 where nothing is known.

        Args:
            one, other: How many runs each mean is of.
            counts: How many runs each of all settings has that are compared.
        """
        if not self.freedom:
            return 0.0
        quantile = _range_quantile(tuple(sorted(counts)), self.freedom)
        return quantile * self.value * math.sqrt(1 / one + 1 / other)


def separate_seeds(
    groups: Sequence[Sequence[tuple[int, np.ndarray]]], labels: np.ndarray
) -> tuple[np.ndarray, SeedSpread]:
    """Return the losses of settings as if each had run with all seeds, by least squares.

    Args:
        groups: For each settings the seed and the losses, (rows,), of each run.
        labels: (rows,)

    Returns:
        (settings, rows) the loss sums, and what a seed changes of them.
    """
    # A run that is repeated with its seed tells nothing of seeds.
    groups = [
        [(seed, np.mean([x for other, x in group if other == seed], 0)) for seed in _seeds(group)]
        for group in groups
    ]
    seeds = sorted({seed for group in groups for seed in _seeds(group)})
    runs = [(n, seeds.index(seed), sums) for n, group in enumerate(groups) for seed, sums in group]
    values = np.array([sums for _, _, sums in runs], float)
    design = np.zeros((len(runs), len(groups) + len(seeds)))
    for row, (n, seed, _) in enumerate(runs):
        design[row, [n, len(groups) + seed]] = 1
    fitted, _, rank, _ = np.linalg.lstsq(design, values)
    of_seeds = fitted[len(groups) :]
    # The mean of a settings' runs, and for each seed that it lacks what the seed changes of others.
    means = np.array(
        [
            np.mean([sums for _, sums in group], 0)
            + of_seeds.mean(0)
            - np.mean([of_seeds[seeds.index(seed)] for seed, _ in group], 0)
            for group in groups
        ]
    )
    freedom = len(runs) - int(rank)
    rest = (values - design @ fitted).sum(1) / labels.sum()
    value = math.sqrt(float((rest**2).sum()) / freedom) if freedom else math.nan
    return means, SeedSpread(value, freedom)


def _seeds(group: Sequence[tuple[int, np.ndarray]]) -> list[int]:
    return sorted({seed for seed, _ in group})


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


@lru_cache(maxsize=64)
def _range_quantile(counts: tuple[int, ...], freedom: int) -> float:
    """Return the 95% quantile of the largest standardized difference of a pair of means.

    It is drawn: the means are normal, and their spread is estimated from so many degrees of
    freedom. For two settings it is Student's t, for equal counts Tukey's studentized range / √2.
    """
    random = np.random.default_rng(0)
    errors = 1 / np.sqrt(counts)
    means = random.standard_normal((SEED_DRAWS, len(counts))) * errors
    spread = np.sqrt(random.chisquare(freedom, SEED_DRAWS) / freedom)
    largest = np.zeros(SEED_DRAWS)
    for i in range(len(counts) - 1):
        pairs = np.abs(means[:, i + 1 :] - means[:, [i]]) / np.hypot(errors[i + 1 :], errors[i])
        largest = np.maximum(largest, pairs.max(1))
    return float(np.quantile(largest / spread, 0.95))
