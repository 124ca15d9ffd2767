"""An epoch, decided before it starts."""

from dataclasses import dataclass

import numpy as np

from data.types import DataError

NOISE = 0.1
"""By what share lengths are blurred before rows are grouped by them."""


@dataclass(frozen=True)
class Plan:
    """Which rows form every micro-batch of every optimizer step on every rank.

    Micro-batches are numbered in the order (optimizer step, micro-step, rank); every
    step but the last has ``accumulate`` micro-steps.

    Shapes:
        order: (rows,) row indices
        starts: (micro_batches + 1,) micro-batch i is order[starts[i] : starts[i + 1]]
        batch_ids: (micro_batches,) its number in the epoch before micro-batches were dealt to ranks
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
        """Row indices of one micro-batch; none where a rank has nothing to do in the last step."""
        i = micro_step * self.world_size + rank
        return self.order[self.starts[i] : self.starts[i + 1]]

    def batch_id(self, rank: int, micro_step: int) -> int:
        """The number of one micro-batch, which is the same for any number of ranks."""
        return int(self.batch_ids[micro_step * self.world_size + rank])

    def step_labels(self, micro_step: int) -> int:
        """Labeled tokens of the optimizer step that a micro_step belongs to."""
        return int(self.labels[micro_step // self.accumulate])


def plan(
    lengths: np.ndarray,
    targets: np.ndarray,
    *,
    batch_size: int,
    max_tokens: int | None = None,
    accumulate: int = 1,
    world_size: int = 1,
    group_by_length: bool = False,
    seed: int | None = None,
    epoch: int = 0,
    skip: int = 0,
) -> Plan:
    """Decide an epoch: a pure function of its arguments.

    Args:
        lengths: (rows,) tokens of each row.
        targets: (rows,) labeled tokens of each row.
        batch_size: Rows a micro-batch may have.
        max_tokens: Tokens a micro-batch may have; None for any number.
        accumulate: Micro-batches of an optimizer step on each rank.
        world_size: Ranks.
        group_by_length: Make micro-batches of rows of about the same length.
        seed: Shuffles the rows, anew each epoch; None keeps their order.
        epoch: Which epoch.
        skip: Leave out so many micro-batches, which were computed before.

    Raises:
        DataError: A number is below 1, or a row is longer than max_tokens.
    """
    if accumulate < 1:
        raise DataError(f"trainer.accumulate_grad_batches is {accumulate}; it must be 1 or more")
    rows, starts = micro_batches(
        lengths,
        batch_size=batch_size,
        max_tokens=max_tokens,
        group_by_length=group_by_length,
        seed=seed,
        epoch=epoch,
    )
    starts = starts[min(skip, len(starts) - 1) :]
    rows, starts = rows[starts[0] :], starts - starts[0]
    batch_ids = skip + np.arange(len(starts) - 1)
    # In the last step, ranks for which nothing is left have empty micro-batches.
    starts = np.append(starts, np.repeat(starts[-1], -len(batch_ids) % world_size))
    batch_ids = np.append(batch_ids, np.repeat(-1, len(starts) - 1 - len(batch_ids)))
    tokens = _sums(lengths[rows], starts)
    of_step = accumulate * world_size
    whole = len(tokens) // of_step * of_step
    order = _deal(tokens[:whole].reshape(-1, of_step), world_size)
    order = np.append(order, whole + _deal(tokens[whole:].reshape(1, -1), world_size))
    rows, starts = _reordered(rows, starts, order)
    steps = np.append(starts[:-1:of_step], starts[-1])
    labels = _sums(targets[rows], steps)
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
    """The micro-batches of an epoch in order, before they are dealt; arguments as of ``plan``.

    Returns:
        Row indices, (rows,), and where micro-batches begin and end among them.

    Raises:
        DataError: batch_size is below 1, or a row is longer than max_tokens.
    """
    if batch_size < 1:
        raise DataError(f"data.batch_size is {batch_size}; it must be 1 or more")
    if max_tokens is not None and len(lengths) and lengths.max() > max_tokens:
        raise DataError(
            f"data.max_tokens is {max_tokens}, but the longest row has {lengths.max()} tokens: "
            "raise max_tokens, or lower data.max_length"
        )
    rows = np.arange(len(lengths))
    random = np.random.default_rng([seed, epoch]) if seed is not None else None
    if random:
        rows = random.permutation(rows)
    if group_by_length:
        rows = rows[_by_length(lengths[rows], random)]
    starts = _borders(lengths[rows], batch_size, max_tokens)
    if group_by_length and random:
        # Short rows first and long ones last would be a lesson of its own.
        rows, starts = _reordered(rows, starts, random.permutation(len(starts) - 1))
    return rows, starts


def _by_length(lengths: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
    """An order in which neighbors are about as long, and others in each epoch."""
    noise = random.uniform(1 - NOISE, 1 + NOISE, len(lengths)) if random else 1.0
    return np.argsort(lengths * noise, kind="stable")


def _borders(lengths: np.ndarray, batch_size: int, max_tokens: int | None) -> np.ndarray:
    """Where micro-batches begin and end when rows are taken until either limit is reached."""
    if max_tokens is None:
        return np.append(np.arange(0, len(lengths), batch_size), len(lengths))
    ends = np.append(0, np.cumsum(lengths, dtype=np.int64))
    # For every row, where a micro-batch ends that begins with it.
    fits = np.searchsorted(ends, ends[:-1] + max_tokens, "right") - 1
    fits = np.minimum(fits, np.arange(len(lengths)) + batch_size)
    borders = [0]
    while borders[-1] < len(lengths):
        borders.append(int(fits[borders[-1]]))
    return np.array(borders)


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The sum of each part of the values."""
    ends = np.append(0, np.cumsum(values, dtype=np.int64))
    return np.diff(ends[starts])


def _reordered(
    rows: np.ndarray, starts: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same micro-batches in another order."""
    sizes = np.diff(starts)[order]
    ends = np.append(0, np.cumsum(sizes))
    # Each row comes from as far behind its micro-batch's old start as it stands behind the new.
    moved = np.repeat(starts[:-1][order] - ends[:-1], sizes)
    return rows[moved + np.arange(len(moved))], ends


def _deal(tokens: np.ndarray, world_size: int) -> np.ndarray:
    """Order the micro-batches of each step, (steps, micro_batches), so that ranks are even."""
    order = np.arange(tokens.size).reshape(tokens.shape)
    if world_size > 1 and tokens.size:
        by_tokens = np.argsort(-tokens, axis=1, kind="stable")
        order = np.take_along_axis(order, by_tokens, axis=1)
        hands = order.reshape(len(order), tokens.shape[1] // world_size, world_size)
        # Snake order: the rank with the largest micro-batch now gets the smallest of the next.
        hands[:, 1::2] = hands[:, 1::2, ::-1]
    return order.reshape(-1)
