"""How much the loss of equal settings changes from seed to seed."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

DRAWS = 20_000


class SeedSpread(NamedTuple):
    """The standard deviation of runs that differ in the seed alone.

    Args:
        value: In nats per label, pooled over all settings that ran more than once; nan if none did.
        freedom: Its degrees of freedom: how many runs were second ones, or later.
    """

    value: float
    freedom: int

    @classmethod
    def of(cls, losses: Sequence[Sequence[float]]) -> "SeedSpread":
        """Return the spread of mean losses per label, those of each settings in one sequence."""
        freedom = sum(len(one) - 1 for one in losses)
        squares = sum(float(np.var(one)) * len(one) for one in losses)
        return cls(math.sqrt(squares / freedom) if freedom else math.nan, freedom)

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


@lru_cache(maxsize=64)
def _range_quantile(counts: tuple[int, ...], freedom: int) -> float:
    """Return the 95% quantile of the largest standardized difference of a pair of means.

    It is drawn: the means are normal, and their spread is estimated from so many degrees of
    freedom. For two settings it is Student's t, for equal counts Tukey's studentized range / √2.
    """
    random = np.random.default_rng(0)
    errors = 1 / np.sqrt(counts)
    means = random.standard_normal((DRAWS, len(counts))) * errors
    spread = np.sqrt(random.chisquare(freedom, DRAWS) / freedom)
    largest = np.zeros(DRAWS)
    for i in range(len(counts) - 1):
        pairs = np.abs(means[:, i + 1 :] - means[:, [i]]) / np.hypot(errors[i + 1 :], errors[i])
        largest = np.maximum(largest, pairs.max(1))
    return float(np.quantile(largest / spread, 0.95))
