"""An epoch, decided before it starts."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data.types import DataError

NOISE = 0.1
"""By what share lengths are blurred before rows are grouped by them."""


@dataclass(frozen=True)
class Plan:
    """Which rows form every micro-batch of every optimizer step on every rank.

    Micro-batches are numbered in the order (optimizer step, turn, rank); each step but the last
    has ``accumulate`` turns.

    Shapes:
        order: (rows,) row indices
        starts: (micro_batches + 1,) micro-batch i is order[starts[i] : starts[i + 1]]
        labels: (steps,) labelled tokens of each whole optimizer step
    """

    order: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    accumulate: int
    world_size: int

    @property
    def turns(self) -> int:
        """Micro-batches that each rank computes."""
        return (len(self.starts) - 1) // self.world_size

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return len(self.labels)

    def rows(self, rank: int, turn: int) -> np.ndarray:
        """Row indices of one micro-batch; none where a rank has nothing to do in the last step."""
        i = turn * self.world_size + rank
        return self.order[self.starts[i] : self.starts[i + 1]]

    def step_labels(self, turn: int) -> int:
        """Labelled tokens of the optimizer step that a turn belongs to."""
        return int(self.labels[turn // self.accumulate])


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
) -> Plan:
    """Decide an epoch: a pure function of its arguments.

    Args:
        lengths: (rows,) tokens of each row.
        targets: (rows,) labelled tokens of each row.
        batch_size: Rows a micro-batch may have.
        max_tokens: Tokens a micro-batch may have; None for any number.
        accumulate: Micro-batches of an optimizer step on each rank.
        world_size: Ranks.
        group_by_length: Make micro-batches of rows of about the same length.
        seed: Shuffles the rows, anew each epoch; None keeps their order.
        epoch: Which epoch.

    Raises:
        DataError: A number is below 1, or a row is longer than max_tokens.
    """
    for name, value in (
        ("data.batch_size", batch_size),
        ("trainer.accumulate_grad_batches", accumulate),
    ):
        if value < 1:
            raise DataError(f"{name} is {value}; it must be 1 or more")
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
    whole = (len(starts) - 1) // (accumulate * world_size) * accumulate * world_size
    last = [rows[begin:end] for begin, end in pairwise(starts[whole:].tolist())]
    rows, starts = rows[: starts[whole]], starts[: whole + 1]
    tokens = _sums(lengths[rows], starts).reshape(-1, accumulate * world_size)
    rows, starts = _reordered(rows, starts, _deal(tokens, world_size))
    if last:
        last = _fill(last, lengths, world_size)
        order = _deal(np.array([[lengths[group].sum() for group in last]]), world_size)
        last = [last[i] for i in order]
        rows = np.concatenate([rows, *last])
        starts = np.concatenate([starts, starts[-1] + np.cumsum([len(group) for group in last])])
    steps = np.append(starts[: -1 : accumulate * world_size], starts[-1])
    return Plan(rows, starts, _sums(targets[rows], steps), accumulate, world_size)


def _by_length(lengths: np.ndarray, random: np.random.Generator | None) -> np.ndarray:
    """An order in which neighbours are about as long, and others in each epoch."""
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


def _fill(step: list[np.ndarray], lengths: np.ndarray, world_size: int) -> list[np.ndarray]:
    """Halve the largest micro-batches of the last step until every rank has equally many."""
    step = list(step)
    while len(step) % world_size:
        largest = max(range(len(step)), key=lambda i: (len(step[i]) > 1, lengths[step[i]].sum()))
        half = len(step[largest]) // 2
        # With fewer rows than ranks, a rank's share is empty.
        step[largest : largest + 1] = [step[largest][half:], step[largest][:half]]
    return step


def _deal(tokens: np.ndarray, world_size: int) -> np.ndarray:
    """Order the micro-batches of each step, (steps, micro_batches), so that ranks are even."""
    order = np.arange(tokens.size).reshape(tokens.shape)
    if world_size > 1:
        by_tokens = np.argsort(-tokens, axis=1, kind="stable")
        order = np.take_along_axis(order, by_tokens, axis=1)
        hands = order.reshape(len(order), tokens.shape[1] // world_size, world_size)
        # There and back: the rank that got the largest of one turn gets the smallest of the next.
        hands[:, 1::2] = hands[:, 1::2, ::-1]
    return order.reshape(-1)
