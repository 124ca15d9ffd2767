"""Plan an epoch before it starts: which rows form which micro-batch, on which rank, when."""

from dataclasses import dataclass

import numpy as np

from data.messages import tr
from data.types import DataError, check_count

LENGTH_NOISE = 0.1
"""Lengths are multiplied by random factors in 1 ± this before rows are grouped by length."""


@dataclass(frozen=True)
class Plan:
    """The rows of every micro-batch of every optimizer step on every rank.

    Micro-batches are numbered in the order (optimizer step, micro-step, rank); every
    step but the last has ``accumulate`` micro-steps.

    Shapes:
        order: (rows,) row indices
        starts: (micro_batches + 1,) micro-batch i is order[starts[i] : starts[i + 1]]
        batch_ids: (micro_batches,) its number in the epoch before the assignment to ranks; -1 for
            an empty micro-batch
        labels: (steps,) labeled tokens of each whole optimizer step
    """

    order: np.ndarray
    starts: np.ndarray
    batch_ids: np.ndarray
    labels: np.ndarray
    accumulate: int
    world_size: int

    @property
    def micro_steps(self) -> int:
        """Micro-batches that each rank computes."""
        return (len(self.starts) - 1) // self.world_size

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return len(self.labels)

    def rows(self, rank: int, micro_step: int) -> np.ndarray:
        """Return the row indices of one micro-batch; it can be empty in the last step."""
        i = micro_step * self.world_size + rank
        return self.order[self.starts[i] : self.starts[i + 1]]

    def batch_id(self, rank: int, micro_step: int) -> int:
        """Return the number of one micro-batch, which does not depend on the number of ranks."""
        return int(self.batch_ids[micro_step * self.world_size + rank])

    def step_labels(self, micro_step: int) -> int:
        """Return the labeled tokens of the optimizer step that a micro-step belongs to."""
        return int(self.labels[micro_step // self.accumulate])


def plan_epoch(
    lengths: np.ndarray,
    label_counts: np.ndarray,
    *,
    batch_size: int,
    max_tokens: int | None = None,
    accumulate: int = 1,
    world_size: int = 1,
    group_by_length: bool = False,
    seed: int | None = None,
    epoch: int = 0,
    skip: int = 0,
    limit: int | None = None,
) -> Plan:
    """Plan an epoch: a pure function of its arguments.

    Args:
        lengths: (rows,) tokens of each row.
        label_counts: (rows,) labeled tokens of each row.
        batch_size: The most rows of a micro-batch.
        max_tokens: The most tokens of a micro-batch; None for no limit.
        accumulate: Micro-batches of an optimizer step on each rank.
        world_size: The number of ranks.
        group_by_length: Form micro-batches of rows of similar length.
        seed: Shuffles the rows, differently in each epoch; None keeps their order.
        epoch: The number of the epoch, from 0.
        skip: Micro-batches at the beginning of the epoch to leave out, because an earlier part of
            the run computed them.
        limit: The most micro-batches of the epoch, those left out included; the others are not
            computed. None for no limit.

    Raises:
        DataError: ``accumulate`` or ``batch_size`` is below 1, or a row is longer than
            ``max_tokens``.
    """
    check_count("accumulate", accumulate)
    rows, starts = micro_batches(
        lengths,
        batch_size=batch_size,
        max_tokens=max_tokens,
        group_by_length=group_by_length,
        seed=seed,
        epoch=epoch,
    )
    starts = starts if limit is None else starts[: limit + 1]
    starts = starts[min(skip, len(starts) - 1) :]
    rows, starts = rows[starts[0] : starts[-1]], starts - starts[0]
    batch_ids = skip + np.arange(len(starts) - 1)
    # Every rank needs a micro-batch in every micro-step: fill up the last with empty ones.
    starts = np.append(starts, np.repeat(starts[-1], -len(batch_ids) % world_size))
    batch_ids = np.append(batch_ids, np.repeat(-1, len(starts) - 1 - len(batch_ids)))
    tokens = _segment_sums(lengths[rows], starts)
    per_step = accumulate * world_size
    full = len(tokens) // per_step * per_step
    order = _balance_ranks(tokens[:full].reshape(-1, per_step), world_size)
    last = _balance_ranks(tokens[full:].reshape(1, -1), world_size)
    order = np.append(order, full + last)
    rows, starts = _reorder(rows, starts, order)
    step_starts = np.append(starts[:-1:per_step], starts[-1])
    labels = _segment_sums(label_counts[rows], step_starts)
    return Plan(rows, starts, batch_ids[order], labels, accumulate, world_size)


def micro_batches(
    lengths: np.ndarray,
    *,
    batch_size: int,
    max_tokens: int | None = None,
    group_by_length: bool = False,
    seed: int | None = None,
    epoch: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Form the micro-batches of an epoch, before they are assigned to ranks.

    Args: as in ``plan_epoch``.

    Returns:
        Row indices, (rows,), and the starts, (micro_batches + 1,), as in ``Plan``.

    Raises:
        DataError: ``batch_size`` is below 1, or a row is longer than ``max_tokens``.
    """
    check_count("batch_size", batch_size)
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
    starts = _batch_starts(lengths[rows], batch_size, max_tokens)
    if group_by_length and random:
        # Without this, every epoch would go from short rows to long ones.
        rows, starts = _reorder(rows, starts, random.permutation(len(starts) - 1))
    return rows, starts


def _length_order(lengths: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
    """Sort by length with some noise, so that neighbors differ from epoch to epoch."""
    noise = random.uniform(1 - LENGTH_NOISE, 1 + LENGTH_NOISE, len(lengths)) if random else 1.0
    return np.argsort(lengths * noise, kind="stable")


def _batch_starts(lengths: np.ndarray, batch_size: int, max_tokens: int | None) -> np.ndarray:
    """Add rows to a micro-batch until either limit is reached; return where each one starts."""
    if max_tokens is None:
        return np.append(np.arange(0, len(lengths), batch_size), len(lengths))
    ends = np.append(0, np.cumsum(lengths, dtype=np.int64))
    # end_from[i] is the end of a micro-batch that starts with row i.
    end_from = np.searchsorted(ends, ends[:-1] + max_tokens, "right") - 1
    end_from = np.minimum(end_from, np.arange(len(lengths)) + batch_size)
    starts = [0]
    while starts[-1] < len(lengths):
        starts.append(int(end_from[starts[-1]]))
    return np.array(starts)


def _segment_sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the sum of values[starts[i] : starts[i + 1]] for every i."""
    totals = np.append(0, np.cumsum(values, dtype=np.int64))
    return np.diff(totals[starts])


def _reorder(
    rows: np.ndarray, starts: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and starts of the same micro-batches in another order."""
    sizes = np.diff(starts)[order]
    new_starts = np.append(0, np.cumsum(sizes))
    # A row keeps its distance from the start of its micro-batch.
    shift = np.repeat(starts[:-1][order] - new_starts[:-1], sizes)
    return rows[shift + np.arange(len(shift))], new_starts


def _balance_ranks(tokens: np.ndarray, world_size: int) -> np.ndarray:
    """Order the micro-batches within each step so that ranks get similar numbers of tokens.

    Args:
        tokens: (steps, micro-batches of a step), with a multiple of ``world_size`` in each step.
        world_size: The number of ranks.

    Returns:
        (steps * micro-batches of a step,) indices of micro-batches.
    """
    order = np.arange(tokens.size).reshape(tokens.shape)
    if world_size > 1 and tokens.size:
        largest_first = np.argsort(-tokens, axis=1, kind="stable")
        order = np.take_along_axis(order, largest_first, axis=1)
        rounds = order.reshape(len(order), tokens.shape[1] // world_size, world_size)
        # Snake order: the rank with the largest micro-batch of one round gets the smallest of
        # the next.
        rounds[:, 1::2] = rounds[:, 1::2, ::-1]
    return order.reshape(-1)
