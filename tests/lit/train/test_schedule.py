"""The learning rate over a run, beside transformers' own."""

from itertools import pairwise

import pytest
import torch
import transformers

from lit.train.schedule import SCHEDULES, lr_factor

THEIRS = {"constant": "constant_with_warmup"}


@pytest.mark.parametrize(("warmup", "steps"), [(0, 10), (1, 1), (3, 20), (7, 7)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_is_that_of_transformers_one_step_later_in_the_warm_up(
    schedule: str, warmup: int, steps: int
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = transformers.get_scheduler(THEIRS.get(schedule, schedule), optimizer, warmup, steps)
    expected = []
    for _ in range(steps + 1):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    for step in range(steps):
        their_step = step + 1 if step < warmup else step
        rate = 1.0 if their_step == warmup else expected[their_step]
        assert lr_factor(schedule, warmup, steps, step) == pytest.approx(rate)


@pytest.mark.parametrize("warmup", [1, 2, 30])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_first_step_learns_and_the_last_one_of_the_warm_up_has_the_highest_rate(
    schedule: str, warmup: int
) -> None:
    rates = [lr_factor(schedule, warmup, 60, step) for step in range(60)]
    assert rates[0] == pytest.approx(1 / warmup)
    assert rates[warmup - 1] == max(rates) == 1
    assert all(0 < a < b for a, b in pairwise(rates[:warmup]))
