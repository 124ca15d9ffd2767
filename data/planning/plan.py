"""Plan an epoch before it starts: which rows form which micro-batch, on which rank, when."""

from dataclasses import dataclass

import numpy as np

from data.beginnings.beginnings import Beginnings
from data.planning.micro_batches import micro_batches, reorder
from data.types import check_count


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
        tokens: (micro_batches,) tokens that are computed, those that rows share counted once
        labels: (steps,) labeled tokens of each whole optimizer step
    """

    order: np.ndarray
    starts: np.ndarray
    batch_ids: np.ndarray
    tokens: np.ndarray
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
    group_by_prefix: bool = False,
    beginnings: Beginnings | None = None,
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
        max_tokens: The most tokens of a micro-batch, shared ones counted once; None for no limit.
        accumulate: Micro-batches of an optimizer step on each rank.
        world_size: The number of ranks.
        group_by_length: Form micro-batches of rows of similar length.
        group_by_prefix: Form micro-batches of rows that share a long beginning.
        beginnings: What the rows share; None to share nothing. Without ``max_tokens`` and
            ``group_by_prefix`` the micro-batches do not depend on it.
        seed: Shuffles the rows, differently in each epoch; None keeps their order.
        epoch: The number of the epoch, from 0.
        skip: Micro-batches at the beginning of the epoch to leave out, because an earlier part of
            the run computed them.
        limit: The most micro-batches of the epoch, those left out included; the others are not
            computed. None for no limit.

    Raises:
        DataError: ``accumulate`` or ``batch_size`` is below 1, a row is longer than
            ``max_tokens``, or rows shall be grouped in two ways.
    """
    check_count("accumulate", accumulate)
    rows, starts = micro_batches(
        lengths,
        batch_size=batch_size,
        max_tokens=max_tokens,
        group_by_length=group_by_length,
        group_by_prefix=group_by_prefix,
        beginnings=beginnings,
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
    tokens = _sums(lengths[rows], starts)
    if beginnings is not None:
        tokens -= beginnings.saved(rows, starts)
    per_step = accumulate * world_size
    full = len(tokens) // per_step * per_step
    order = _balance_ranks(tokens[:full].reshape(-1, per_step), world_size)
    last = _balance_ranks(tokens[full:].reshape(1, -1), world_size)
    order = np.append(order, full + last)
    rows, starts = reorder(rows, starts, order)
    step_starts = np.append(starts[:-1:per_step], starts[-1])
    labels = _sums(label_counts[rows], step_starts)
    return Plan(rows, starts, batch_ids[order], tokens[order], labels, accumulate, world_size)


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the sum of values[starts[i] : starts[i + 1]] for every i."""
    totals = np.append(0, np.cumsum(values, dtype=np.int64))
    return np.diff(totals[starts])


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
