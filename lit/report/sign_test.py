"""The sign test of votes: is one side preferred more often than by chance?"""

import math
from collections.abc import Callable
from typing import NamedTuple

LEVEL = 0.95
"""The confidence level of the interval."""


class SignTest(NamedTuple):
    """The share of wins among the votes that are no ties.

    Args:
        votes: Wins and losses together.
        share: Wins among them; one half without votes.
        low, high: The exact 95 % interval of the share (Clopper and Pearson, 1934).
        p_value: How likely a count at least as uneven is if both sides are equally good.
    """

    votes: int
    share: float
    low: float
    high: float
    p_value: float


def sign_test(wins: int, losses: int) -> SignTest:
    """Return the share of wins with its interval; ties are not counted.

    Args:
        wins: Votes for one side.
        losses: Votes for the other side.
    """
    votes = wins + losses
    if votes == 0:
        return SignTest(0, 0.5, 0.0, 1.0, 1.0)
    tail = (1 - LEVEL) / 2
    # The bound is the share at which so many wins or more (so few or fewer) have that probability.
    low = 0.0 if wins == 0 else _solve(lambda p: 1 - _at_most(wins - 1, votes, p) - tail)
    high = 1.0 if losses == 0 else _solve(lambda p: tail - _at_most(wins, votes, p))
    p_value = min(1.0, 2 * _at_most(min(wins, losses), votes, 0.5))
    return SignTest(votes, wins / votes, low, high, p_value)


def _at_most(wins: int, votes: int, share: float) -> float:
    """Return the probability of at most so many wins."""
    if not 0 < share < 1:
        return 1.0 if share <= 0 or wins >= votes else 0.0
    odds = math.log(share), math.log1p(-share)
    total = math.lgamma(votes + 1)
    terms = (
        total
        - math.lgamma(k + 1)
        - math.lgamma(votes - k + 1)
        + k * odds[0]
        + (votes - k) * odds[1]
        for k in range(wins + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def _solve(rising: Callable[[float], float]) -> float:
    """Return where a function that rises on [0, 1] is zero, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return (low + high) / 2
