"""Find the rows that begin with the same tokens, from the tokens alone."""

from collections.abc import Iterable

import numpy as np

from data.beginnings.beginnings import Beginnings
from data.types import IGNORE, Example

MIN_SHARED = 8
"""The fewest tokens of a beginning: computing fewer apart costs more than computing them again."""


def limits_of(labels: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return how many tokens of each row may be shared: those before its first label, never all.

    Args:
        labels: (tokens,) of rows that lie end to end, IGNORE where the model does not learn.
        starts: (rows + 1,) where rows begin.

    Returns:
        (rows,).
    """
    labeled = np.append(np.flatnonzero(labels != IGNORE), len(labels))
    first = labeled[np.searchsorted(labeled, starts[:-1])]
    return np.maximum(np.minimum(first, starts[1:] - 1) - starts[:-1], 0)


class BeginningFinder:
    """Collects the tokens of rows that could be shared, and finds those that are."""

    def __init__(self) -> None:
        self._tokens: list[np.ndarray] = []
        self._limits: list[np.ndarray] = []

    def add(self, tokens: np.ndarray, labels: np.ndarray, starts: np.ndarray) -> None:
        """Add rows that lie end to end.

        Args:
            tokens, labels: (tokens,).
            starts: (rows + 1,) where rows begin, from 0.
        """
        limits = limits_of(labels, starts)
        # Only these are kept: answers are most of what many a file has.
        distance = np.arange(len(tokens)) - np.repeat(starts[:-1], np.diff(starts))
        self._tokens.append(tokens[distance < np.repeat(limits, np.diff(starts))].astype(np.int32))
        self._limits.append(limits)

    def find(self) -> Beginnings:
        """Return what the rows added so far share, in the order in which they were added."""
        tokens = np.concatenate(self._tokens or [np.zeros(0, np.int32)])
        limits = np.concatenate(self._limits or [np.zeros(0, np.int64)])
        return Beginnings.make(*_refine(tokens, limits))


def find_beginnings(examples: Iterable[Example]) -> Beginnings:
    """Return what some examples share."""
    finder = BeginningFinder()
    for ids, labels, *_ in examples:
        finder.add(np.asarray(ids), np.asarray(labels), np.array([0, len(ids)]))
    return finder.find()


def _refine(tokens: np.ndarray, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order rows by their tokens, one token of all rows at a time.

    A group has the rows that are equal so far. It ends a beginning where it divides, if the last
    end on the way there is at least MIN_SHARED tokens away.

    Args:
        tokens: What each row may share, end to end.
        limits: (rows,) how many tokens that is of each row.

    Returns:
        The arguments of ``Beginnings``: rank and common, (rows,) each.
    """
    first = np.append(0, np.cumsum(limits)[:-1]).astype(np.int64)
    order, common = np.arange(len(limits)), np.zeros(len(limits), np.int32)
    # Of the rows in groups of two or more: their places in the order, and their groups.
    places, group = np.arange(len(limits)), np.zeros(len(limits), np.int64)
    end = np.zeros(len(limits), np.int64)
    depth = 0
    while len(places) > 1:
        rows = order[places]
        # A row that may share no more is unlike all others.
        token = -1 - np.arange(len(rows), dtype=np.int64)
        going_on = limits[rows] > depth
        token[going_on] = tokens[first[rows[going_on]] + depth]
        divides = (group[1:] == group[:-1]) & (token[1:] != token[:-1])
        if divides.any():
            sort = np.lexsort((token, group))
            token, end, order[places] = token[sort], end[sort], rows[sort]
            divides = (group[1:] == group[:-1]) & (token[1:] != token[:-1])
            ends_here = np.isin(group, group[1:][divides]) & (depth - end >= MIN_SHARED)
            end = np.where(ends_here, depth, end)
            common[places[1:][divides]] = end[1:][divides]
            starts = np.append(True, divides | (group[1:] != group[:-1]))
            group = np.cumsum(starts)
            several = np.bincount(group)[group] > 1
            places, group, end = places[several], group[several], end[several]
        depth += 1
    rank = np.empty(len(limits), np.int32)
    rank[order] = np.arange(len(limits))
    return rank, common
