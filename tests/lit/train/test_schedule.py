"""The learning rate over a run, beside transformers' own."""

import pytest
import torch
import transformers

from lit.train.schedule import SHAPES, factor

THEIRS = {"constant": "constant_with_warmup"}


@pytest.mark.parametrize(("warmup", "steps"), [(0, 10), (1, 1), (3, 20), (7, 7)])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_rate_of_every_step_is_that_of_transformers(
    shape: str, warmup: int, steps: int
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = transformers.get_scheduler(THEIRS.get(shape, shape), optimizer, warmup, steps)
    for step in range(steps):
        assert factor(shape, warmup, steps, step) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
