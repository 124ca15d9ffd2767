"""Intervals of a paired difference: each row is measured under both models.

``python -m benchmarks.coverage`` simulates how often they hold the truth; docs/verdict.md has the
table.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

MIN_ROWS = 10
"""Fewer rows have no interval: with 3 to 9 rows no method tried holds what it promises."""
SAMPLES = 4000
Z = 1.959963984540054
MAX_BOOTSTRAP = 2000
"""More rows have the t interval alone: their mean is near normal, and resampling them is slow."""
LEAST_SPREAD = 1e-3
"""Of the rows' standard error; a bootstrap sample with less holds equal rows only."""
CHUNK = 4_000_000
"""Numbers that a chunk of bootstrap samples holds at a time."""


class Interval(NamedTuple):
    """A 95% interval."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the difference has a sign."""
        return self.low > 0 or self.high < 0


def paired_interval(
    difference: np.ndarray,
    weights: np.ndarray | None = None,
    binary: bool = False,
) -> Interval | None:
    """Return the 95% interval of a mean difference, or None for fewer than ``MIN_ROWS`` rows.

    Args:
        difference: (rows,) tuned minus base of each row; if there are weights, the difference of
            the row's sums.
        weights: (rows,) what the sums are divided by, such as the labeled tokens of each row; the
            interval is that of the ratio of the two totals.
        binary: The rows were measured as 0 and 1, so differences are -1, 0 and 1.

    The interval is nan … nan if a difference is not finite.
    """
    if len(difference) < MIN_ROWS:
        return None
    if not np.isfinite(difference).all():
        return Interval(math.nan, math.nan)
    if binary:
        return _binary_interval(difference)
    weights = np.ones(len(difference)) if weights is None else weights
    low, high = intervals(difference[None].astype(float), weights[None].astype(float))
    return Interval(float(low[0]), float(high[0]))


def intervals(difference: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the intervals of many data sets: the hull of Student's t and a studentized bootstrap.

    The t interval is too narrow for skewed differences, and the studentized bootstrap for
    heavy-tailed ones; the wider limit of the two holds for both.

    Args:
        difference: (sets, rows) as in ``paired_interval``.
        weights: (sets, rows).

    Returns:
        The low and the high limits, (sets,) each.
    """
    sets, rows = difference.shape
    total = weights.sum(1)
    mean = difference.sum(1) / total
    rest = difference - mean[:, None] * weights
    error = np.sqrt(rows / (rows - 1) * (rest**2).sum(1)) / total
    low, high = (mean + sign * student_t(rows - 1) * error for sign in (-1, 1))
    if rows > MAX_BOOTSTRAP:
        return low, high
    counts = _resamples(rows)
    step = max(1, CHUNK // (len(counts) + rows))
    for first in range(0, sets, step):
        part = slice(first, first + step)
        lowest, highest = _studentized(rest[part], weights[part], error[part], counts)
        low[part] = np.fmin(low[part], mean[part] - highest * error[part])
        high[part] = np.fmax(high[part], mean[part] - lowest * error[part])
    return low, high


def rows_that_would_show(difference: float, interval: Interval, rows: int) -> int | None:
    """Return how many rows would make an interval exclude zero, if difference and spread stay.

    None where that is no useful number: no difference was seen, or over a thousand times as many.
    """
    half = (interval.high - interval.low) / 2
    if not difference or not math.isfinite(half / difference):
        return None
    needed = math.ceil(rows * (half / difference) ** 2)
    return max(needed, rows + 1) if needed <= 1000 * rows else None


def student_t(freedom: int, z: float = Z) -> float:
    """Return the quantile of Student's t that has the tail of the normal quantile ``z``.

    By its expansion; that of 97.5% is right to 0.001 from 5 degrees on.
    """
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


@lru_cache(maxsize=1)  # measures of one comparison have the same rows
def _resamples(rows: int) -> np.ndarray:
    """Return how often each bootstrap sample holds each row, (SAMPLES, rows)."""
    drawn = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), SAMPLES)
    return drawn.astype(float)


def _studentized(
    rest: np.ndarray, weights: np.ndarray, all_error: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the quantiles of (resampled - mean) / its own standard error, (sets,) each."""
    rows = rest.shape[1]
    total = counts @ weights.T
    shift = counts @ rest.T / total
    squares = counts @ (rest**2).T
    squares += shift * (shift * (counts @ (weights**2).T) - 2 * (counts @ (rest * weights).T))
    error = np.sqrt(rows / (rows - 1) * np.maximum(squares, 0)) / total
    # A sample of equal rows has no standard error; t alone decides where all are such.
    spread = error > LEAST_SPREAD * all_error
    ratios = np.where(spread, shift / np.where(spread, error, 1), np.nan)
    known = spread.any(0)
    limits = np.zeros((2, rest.shape[0]))
    if known.any():
        limits[:, known] = np.nanquantile(ratios[:, known], [0.025, 0.975], axis=0)
    return limits[0], limits[1]


def _binary_interval(difference: np.ndarray) -> Interval:
    """Return the interval of a difference of paired proportions, adjusted by one row each way.

    Without the adjustment rows that all agree would claim a difference of exactly zero.
    """
    rows = len(difference)
    gained, lost = ((np.sum(difference == sign) + 1) / (rows + 2) for sign in (1, -1))
    center = float(gained - lost)
    half = Z * math.sqrt((gained + lost - center**2) / (rows + 2))
    return Interval(max(-1.0, center - half), min(1.0, center + half))
