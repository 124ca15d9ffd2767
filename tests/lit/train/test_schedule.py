"""The learning rate over a run, beside transformers' own."""

import pytest
import torch
import transformers

from lit.train.schedule import SCHEDULES, lr_factor

THEIRS = {"constant": "constant_with_warmup"}


@pytest.mark.parametrize(("warmup", "steps"), [(0, 10), (1, 1), (3, 20), (7, 7)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_of_every_step_is_that_of_transformers(
    schedule: str, warmup: int, steps: int
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = transformers.get_scheduler(THEIRS.get(schedule, schedule), optimizer, warmup, steps)
    for step in range(steps):
        assert lr_factor(schedule, warmup, steps, step) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
