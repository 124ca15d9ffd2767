"""Which tokens of a prompt to remove so that a row fits: never those between its turns."""

from collections.abc import Sequence
from typing import NamedTuple

from data.types import Example

MIN_PROMPT = 16
"""Tokens that must remain of a turn that is cut; with fewer, the row is left out."""


class Span(NamedTuple):
    """Consecutive tokens, from ``start`` up to ``end``, which is not included."""

    start: int
    end: int


def differing_span(ids: Sequence[int], other: Sequence[int]) -> Span:
    """Return the tokens of ``ids`` that are not in its common beginning or end with ``other``."""
    shortest = min(len(ids), len(other))
    start = next((i for i in range(shortest) if ids[i] != other[i]), shortest)
    rest = shortest - start
    same = next((i for i in range(rest) if ids[-1 - i] != other[-1 - i]), rest)
    return Span(start, len(ids) - same)


def spans_to_remove(turns: Sequence[Span], count: int) -> list[Span] | None:
    """Choose tokens to remove: the longest turns are cut to the same length, in their middle.

    Args:
        turns: The content of each turn, in order.
        count: How many tokens to remove.

    Returns:
        Spans in order, or None where a turn would keep fewer than ``MIN_PROMPT`` tokens.
    """
    lengths = [turn.end - turn.start for turn in turns]
    keep = sum(lengths) - count
    # Bisect for the most tokens that every turn may keep.
    low, high = 0, max(lengths, default=0) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _total(lengths, middle) <= keep else (low, middle)
    if low < MIN_PROMPT:
        return None
    spare = keep - _total(lengths, low)
    removed = []
    for turn, length in zip(turns, lengths, strict=True):
        if length <= low:
            continue
        kept = low + (spare > 0)
        spare -= kept - low
        head = turn.start + kept // 2
        removed.append(Span(head, head + length - kept))
    return [span for span in removed if span.end > span.start]


def remove_spans(example: Example, spans: Sequence[Span]) -> Example:
    """Return an example without these tokens, which have no labels."""
    ids, labels = [*example.ids], [*example.labels]
    for start, end in reversed(spans):
        del ids[start:end], labels[start:end]
    return example._replace(ids=ids, labels=labels, cut=len(example.ids) - len(ids))


def _total(lengths: Sequence[int], most: int) -> int:
    return sum(min(length, most) for length in lengths)
