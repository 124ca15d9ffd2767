"""The plans of a run give every row once an epoch, also if the run resumes inside one."""

import numpy as np
import pytest

from data.planning.epoch_plans import EpochPlans

ROWS = 50
LENGTHS = np.random.default_rng(0).integers(4, 65, ROWS)


def epoch_plans(accumulate: int = 2, world_size: int = 2) -> EpochPlans:
    return EpochPlans(
        *(LENGTHS, LENGTHS - 1),
        batch_size=3,
        max_tokens=128,
        group_by_length=False,
        seed=1,
        accumulate=accumulate,
        world_size=world_size,
    )


def rows_of_steps(plans: EpochPlans, first: int, end: int) -> list[int]:
    steps = range(first, end)
    return [
        row for step in steps for row in plans.step_rows(plans.step_map.at_step(step).epoch, step)
    ]


def test_the_steps_of_an_epoch_contain_every_row_once() -> None:
    plans = epoch_plans()
    first = plans.step_map.total_steps(1)
    second = plans.step_map.total_steps(2)
    assert sorted(rows_of_steps(plans, 0, first)) == list(range(ROWS))
    assert sorted(rows_of_steps(plans, first, second)) == list(range(ROWS))


@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize(("accumulate", "world_size"), [(2, 2), (1, 2), (4, 1), (3, 1)])
def test_a_resumed_run_computes_the_remaining_rows_of_the_epoch(
    step: int, accumulate: int, world_size: int
) -> None:
    before, after = epoch_plans(), epoch_plans(accumulate, world_size)
    after.resume_from(before.step_map.segments, step)
    done = rows_of_steps(before, 0, step)
    rest = rows_of_steps(after, step, after.step_map.total_steps(1))
    assert sorted(done + rest) == list(range(ROWS))


def test_the_micro_step_of_a_finished_epoch_is_its_end() -> None:
    plans = epoch_plans()
    assert plans.micro_step(0, 0) == 0
    assert plans.micro_step(0, 1) == plans.accumulate
    assert plans.micro_step(0, plans.step_map.total_steps(1)) == plans.epoch(0).micro_steps


@pytest.mark.parametrize("rank", [None, 0, 1])
def test_the_largest_micro_batch_has_the_most_tokens(rank: int | None) -> None:
    plans = epoch_plans()
    tokens = [
        int(LENGTHS[planned.rows(of_rank, micro_step)].sum())
        for planned in map(plans.epoch, range(3))
        for micro_step in range(planned.micro_steps)
        for of_rank in ([0, 1] if rank is None else [rank])
    ]
    assert LENGTHS[plans.largest(3, rank)].sum() == max(tokens)
