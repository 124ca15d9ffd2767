"""The segments of a micro-batch: beginnings that rows share, and the rest of each row."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Segment(NamedTuple):
    """Some tokens of a row; a beginning is those of several rows."""

    row: int
    """The row, or the first of those that begin so."""
    start: int
    end: int


class Segments(NamedTuple):
    """The segments of a micro-batch in the order in which they lie.

    A beginning lies before what follows it.
    """

    segments: list[Segment]
    paths: list[tuple[int, ...]]
    """The segments of each row, from its first token to its last."""


def divide(lengths: Sequence[int], order: Sequence[int], common: Sequence[int]) -> Segments:
    """Divide rows into segments.

    Args:
        lengths: Tokens of each row.
        order: Rows in an order in which those that begin alike are neighbors.
        common: Tokens that each of these shares with the one before it; the first is not read.
    """
    nodes: list[tuple[Segment, ...]] = [()] * len(lengths)
    work: list[tuple[int, int, int, tuple[Segment, ...]]] = [(0, len(order), 0, ())]
    while work:
        low, high, start, path = work.pop()
        if high - low == 1:
            row = order[low]
            nodes[row] = (*path, Segment(row, start, lengths[row]))
            continue
        end = min(common[low + 1 : high])
        if end > start:
            path = (*path, Segment(min(order[low:high]), start, end))
        cuts = [low, *(i for i in range(low + 1, high) if common[i] == end), high]
        work += [(*part, end, path) for part in pairwise(cuts)]
    numbers: dict[Segment, int] = {}
    paths = [tuple(numbers.setdefault(segment, len(numbers)) for segment in path) for path in nodes]
    return Segments(list(numbers), paths)
