"""Form the micro-batches of an epoch: which rows are computed together."""

from itertools import pairwise

import numpy as np

from data.beginnings.beginnings import Beginnings, GrowingSet
from data.messages import tr
from data.types import DataError, check_count

LENGTH_NOISE = 0.1
"""Lengths are multiplied by random factors in 1 ± this before rows are grouped by length."""
LONG = 32
"""Tokens that rows share beyond what all rows do, from which on they are put together."""


def micro_batches(
    lengths: np.ndarray,
    *,
    batch_size: int,
    max_tokens: int | None = None,
    group_by_length: bool = False,
    group_by_prefix: bool = False,
    beginnings: Beginnings | None = None,
    seed: int | None = None,
    epoch: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Form the micro-batches of an epoch, before they are assigned to ranks.

    Args: as in ``data.planning.plan.plan_epoch``.

    Returns:
        Row indices, (rows,), and the starts, (micro_batches + 1,), as in ``Plan``.

    Raises:
        DataError: ``batch_size`` is below 1, a row is longer than ``max_tokens``, or rows shall be
            grouped in two ways.
    """
    check_count("batch_size", batch_size)
    if group_by_length and group_by_prefix:
        raise DataError(
            tr("`group_by_length` and `group_by_prefix` exclude each other: choose one")
        )
    if max_tokens is not None and len(lengths) and lengths.max() > max_tokens:
        raise DataError(
            tr(
                "`max_tokens` is {max_tokens}, but the longest row has {longest} tokens: raise "
                "`max_tokens` or lower `max_length`",
                max_tokens=max_tokens,
                longest=lengths.max(),
            )
        )
    rows = np.arange(len(lengths))
    random = np.random.default_rng([seed, epoch]) if seed is not None else None
    if random:
        rows = random.permutation(rows)
    if group_by_length:
        rows = rows[_length_order(lengths[rows], random)]
    if group_by_prefix and beginnings is not None:
        rows = rows[_prefix_order(rows, beginnings, random)]
    starts = _batch_starts(rows, lengths, batch_size, max_tokens, beginnings)
    if (group_by_length or group_by_prefix) and random:
        # Without this, every epoch would go from short rows to long ones, and the rows of a
        # document would follow each other from step to step.
        rows, starts = reorder(rows, starts, random.permutation(len(starts) - 1))
    return rows, starts


def reorder(
    rows: np.ndarray, starts: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and starts of the same micro-batches in another order."""
    sizes = np.diff(starts)[order]
    new_starts = np.append(0, np.cumsum(sizes))
    # A row keeps its distance from the start of its micro-batch.
    shift = np.repeat(starts[:-1][order] - new_starts[:-1], sizes)
    return rows[shift + np.arange(len(shift))], new_starts


def _length_order(lengths: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
    """Sort by length with some noise, so that neighbors differ from epoch to epoch."""
    noise = random.uniform(1 - LENGTH_NOISE, 1 + LENGTH_NOISE, len(lengths)) if random else 1.0
    return np.argsort(lengths * noise, kind="stable")


def _prefix_order(
    rows: np.ndarray, beginnings: Beginnings, random: np.random.Generator | None
) -> np.ndarray:
    """Put rows that begin alike next to each other, in a random order of groups and in them."""
    order, common = beginnings.neighbors(rows)
    if random and len(rows) > 1:
        # Any micro-batch shares what all rows share; for little more, rows stay mixed.
        common = np.where(common - common[1:].min() < LONG, 0, common)
    placed: list[int] = []
    work = [(0, len(rows))] if len(rows) else []
    while work:
        low, high = work.pop()
        if high - low == 1:
            placed.append(low)
            continue
        inside = common[low + 1 : high]
        cuts = low + 1 + np.flatnonzero(inside == inside.min())
        parts = list(pairwise([low, *cuts.tolist(), high]))
        work += [parts[i] for i in random.permutation(len(parts))] if random else parts[::-1]
    return order[placed]


def _batch_starts(
    rows: np.ndarray,
    lengths: np.ndarray,
    batch_size: int,
    max_tokens: int | None,
    beginnings: Beginnings | None,
) -> np.ndarray:
    """Add rows to a micro-batch until either limit is reached; return where each one starts."""
    if max_tokens is None:
        return np.append(np.arange(0, len(rows), batch_size), len(rows))
    if beginnings is not None and beginnings.any:
        return _sharing_starts(rows, lengths, batch_size, max_tokens, beginnings)
    ends = np.append(0, np.cumsum(lengths[rows], dtype=np.int64))
    # end_from[i] is the end of a micro-batch that starts with row i.
    end_from = np.searchsorted(ends, ends[:-1] + max_tokens, "right") - 1
    end_from = np.minimum(end_from, np.arange(len(rows)) + batch_size)
    starts = [0]
    while starts[-1] < len(rows):
        starts.append(int(end_from[starts[-1]]))
    return np.array(starts)


def _sharing_starts(
    rows: np.ndarray,
    lengths: np.ndarray,
    batch_size: int,
    max_tokens: int,
    beginnings: Beginnings,
) -> np.ndarray:
    """Do the same where a row adds only what the rows before it in the micro-batch lack."""
    batch, tokens, starts = GrowingSet(beginnings), 0, [0]
    for place, row in enumerate(rows.tolist()):
        added = int(lengths[row]) - batch.shared(row)
        if place - starts[-1] == batch_size or tokens + added > max_tokens:
            starts.append(place)
            batch.clear()
            tokens, added = 0, int(lengths[row])
        batch.add(row)
        tokens += added
    return np.array([*starts, len(rows)] if len(rows) else [0])
