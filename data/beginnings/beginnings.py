"""How many tokens any rows have in common at their beginnings."""

from bisect import bisect_left
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Beginnings:
    """What rows share: the tokens with which two or more of them begin, and that have no label.

    Rows that begin alike have neighboring places, so two rows share as many tokens as the two
    neighbors between them that share the fewest.

    Args:
        rank: (rows,) the place of each row.
        minima: ``minima[k][i]`` is the least of 2**k numbers from place i on; ``minima[0]`` is how
            many tokens the row at a place shares with the row at the place before.
    """

    rank: np.ndarray
    minima: tuple[np.ndarray, ...]

    @classmethod
    def make(cls, rank: np.ndarray, common: np.ndarray) -> "Beginnings":
        """Return the beginnings of rows from their places and what neighbors share, (rows,)."""
        minima, width = [common], 1
        while common.any() and 2 * width <= len(common):
            last = minima[-1]
            minima.append(np.minimum(last[:-width], last[width:]))
            width *= 2
        return cls(rank, tuple(minima))

    @property
    def common(self) -> np.ndarray:
        """Tokens that the row at each place shares with the row at the place before, (rows,)."""
        return self.minima[0]

    @property
    def any(self) -> bool:
        """Whether any two rows share a beginning."""
        return len(self.minima) > 1 or bool(self.common.any())

    def of(self, rows: np.ndarray) -> "Beginnings":
        """Return the beginnings of some of the rows, in their order."""
        return replace(self, rank=self.rank[rows])

    def shared(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return how many tokens the rows at two places share, (n,).

        Args:
            first, second: (n,) places; the first of each pair is the smaller.
        """
        if not self.any:
            return np.zeros(len(first), np.int64)
        level = np.frexp(second - first)[1] - 1  # the binary logarithm, rounded down
        least = np.zeros(len(first), np.int64)
        for k in np.unique(level):
            at = level == k
            table = self.minima[k]
            least[at] = np.minimum(table[first[at] + 1], table[second[at] - 2**k + 1])
        return least

    def saved(self, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Return the tokens that each of several sets of rows need not compute, (sets,).

        Args:
            rows: Row numbers.
            starts: (sets + 1,) set i is rows[starts[i] : starts[i + 1]].
        """
        sets = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        place = self.rank[rows].astype(np.int64)
        order = np.lexsort((place, sets))
        place = place[order]
        inside = sets[1:] == sets[:-1]
        shared = self.shared(place[:-1][inside], place[1:][inside])
        counts = np.bincount(sets[1:][inside], weights=shared, minlength=len(starts) - 1)
        return counts.astype(np.int64)

    def neighbors(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return some rows in the order of their places, and what neighbors among them share.

        Returns:
            Indices into ``rows``, and the tokens that each of these rows shares with the one before
            it, 0 for the first; (rows,) each.
        """
        place = self.rank[rows].astype(np.int64)
        order = np.argsort(place, kind="stable")
        place = place[order]
        return order, np.append(0, self.shared(place[:-1], place[1:]))[: len(rows)]


class GrowingSet:
    """A set of rows that counts the tokens a further row would add."""

    def __init__(self, beginnings: Beginnings) -> None:
        self.beginnings = beginnings
        self._places: list[int] = []

    def clear(self) -> None:
        """Remove all rows."""
        self._places = []

    def shared(self, row: int) -> int:
        """Return how many tokens of a row the set has already."""
        place, places = int(self.beginnings.rank[row]), self._places
        at = bisect_left(places, place)
        before = self._pair(places[at - 1], place) if at else 0
        after = self._pair(place, places[at]) if at < len(places) else 0
        return max(before, after)

    def add(self, row: int) -> None:
        """Add a row."""
        place = int(self.beginnings.rank[row])
        self._places.insert(bisect_left(self._places, place), place)

    def _pair(self, first: int, second: int) -> int:
        level = (second - first).bit_length() - 1
        table = self.beginnings.minima[level]
        return int(min(table[first + 1], table[second - 2**level + 1]))
