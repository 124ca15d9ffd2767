"""The micro-batches of a plan, as a DataLoader gets them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data.planning.loader import MicroBatches, MicroStepSampler
from data.planning.plan import plan_epoch
from data.types import IGNORE, Batch, Example

LENGTHS = np.arange(3, 14)


def example(row: int) -> Example:
    """Return a row whose tokens are all its number, with labels but for the first."""
    ids = [int(row)] * int(LENGTHS[row])
    return Example(ids, [IGNORE, *ids[1:]])


def batches(epoch: int = 0, **changes: Any) -> list[Batch]:
    """Return the batches of an epoch, of all ranks."""
    arguments = {"batch_size": 2, "seed": 1, "world_size": 1} | changes
    plan = plan_epoch(LENGTHS, LENGTHS - 1, epoch=epoch, **arguments)
    store: Any = SimpleNamespace(example=example, lengths=LENGTHS)
    plans: Any = SimpleNamespace(epoch=lambda _: plan, beginnings=None)
    rows = np.arange(len(LENGTHS))
    return [
        MicroBatches(store, rows, plans, rank, epoch)[micro_step]
        for rank in range(plan.world_size)
        for micro_step in range(plan.micro_steps)
    ]


def keys_by_rows(made: list[Batch]) -> dict[tuple[int, ...], int]:
    """Return the key of each batch with labels by the rows in it."""
    return {
        tuple(batch.input_ids.unique().tolist()): batch.rng_key
        for batch in made
        if (batch.labels != IGNORE).any()
    }


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_micro_batch_has_the_same_rng_key_on_any_number_of_ranks(
    world_size: int, accumulate: int
) -> None:
    several = keys_by_rows(batches(world_size=world_size, accumulate=accumulate))
    assert several == keys_by_rows(batches())


@pytest.mark.parametrize("skip", [1, 3])
def test_a_micro_batch_has_the_same_rng_key_after_others_were_skipped(skip: int) -> None:
    rest = keys_by_rows(batches(skip=skip))
    assert len(rest) == 6 - skip
    assert rest.items() <= keys_by_rows(batches()).items()


def test_no_two_micro_batches_of_a_run_have_the_same_rng_key() -> None:
    keys = [batch.rng_key for epoch in range(3) for batch in batches(epoch)]
    assert len(set(keys)) == len(keys) == 18


def test_a_rank_without_rows_computes_the_shortest_row_without_labels() -> None:
    made = batches(world_size=4)
    idle = [batch for batch in made if not (batch.labels != IGNORE).any()]
    assert len(idle) == 2
    for batch in idle:
        assert batch.input_ids.tolist() == [[0] * 3]
        assert batch.step_labels == sum(int((other.labels != IGNORE).sum()) for other in made[1::2])


def test_a_resumed_epoch_starts_at_its_micro_step_and_has_its_whole_length() -> None:
    sampler = MicroStepSampler(2, 5)
    assert list(sampler) == [2, 3, 4]
    assert len(sampler) == 5
