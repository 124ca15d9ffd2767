"""How much longer the busiest rank computes than the mean, by the plan of an epoch."""

from dataclasses import dataclass

import numpy as np

from data.plan import Plan, plan

STEPS = 200
"""Optimizer steps that are looked at, where MOST_EPOCHS have so many."""
MOST_EPOCHS = 3


@dataclass(frozen=True)
class Batching:
    """How micro-batches are formed, as under ``data.``, and how many each rank adds up."""

    batch_size: int
    max_tokens: int | None = None
    accumulate: int = 1
    group_by_length: bool = False


@dataclass(frozen=True)
class Imbalance:
    """Work of the busiest rank over the mean rank's tokens, of each optimizer step, (steps,).

    Args:
        mean: Tokens of the mean rank, which the others are divided by.
        dealt: By the project's plan.
        in_turn: The same micro-batches, dealt as they were formed.
        padded: The same, each rank computing rows x longest of every micro-batch.
        dealt_by_turn: By the plan, where ranks wait for each other in every micro-batch, as they
            do when the base is sharded.
    """

    mean: np.ndarray
    dealt: np.ndarray
    in_turn: np.ndarray
    padded: np.ndarray
    dealt_by_turn: np.ndarray


def simulate(lengths: np.ndarray, batching: Batching, world_size: int) -> Imbalance:
    """Plan epochs and add up what each rank would compute.

    The last step of an epoch is left out where it is short.

    Args:
        lengths: (rows,) tokens of each row; enough for one whole step.
        batching: Settings of the run.
        world_size: Ranks.
    """
    found: list[tuple[np.ndarray, ...]] = []
    for epoch in range(MOST_EPOCHS):
        # One rank alone gets the same micro-batches in the order they were formed.
        alone = _plan(lengths, batching, 1, epoch)
        steps = (len(alone.starts) - 1) // (batching.accumulate * world_size)
        shape = (steps, batching.accumulate, world_size)
        in_turn, padded = (_first(work, shape) for work in _work(alone, lengths))
        dealt = _first(_work(_plan(lengths, batching, world_size, epoch), lengths)[0], shape)
        mean = dealt.sum(axis=1).mean(axis=1)
        busiest = [work.sum(axis=1).max(axis=1) / mean for work in (dealt, in_turn, padded)]
        found.append((mean, *busiest, dealt.max(axis=2).sum(axis=1) / mean))
        if sum(len(of_epoch[0]) for of_epoch in found) >= STEPS:
            break
    return Imbalance(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _work(planned: Plan, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each micro-batch its tokens, and its rows times the longest."""
    begins, sizes = planned.starts[:-1], np.diff(planned.starts)
    begins, sizes = begins[sizes > 0], sizes[sizes > 0]
    ordered = lengths[planned.order]
    return np.add.reduceat(ordered, begins), np.maximum.reduceat(ordered, begins) * sizes


def _first(work: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The whole steps, as (steps, turns, ranks)."""
    return work[: np.prod(shape)].reshape(shape)


def _plan(lengths: np.ndarray, batching: Batching, world_size: int, epoch: int) -> Plan:
    return plan(
        lengths,
        lengths,
        batch_size=batching.batch_size,
        max_tokens=batching.max_tokens,
        accumulate=batching.accumulate,
        world_size=world_size,
        group_by_length=batching.group_by_length,
        seed=0,
        epoch=epoch,
    )
