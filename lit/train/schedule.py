"""The learning rate over a run, as factors of the highest rate by optimizer step.

The formulas are those of transformers, whose own module loads half of torch's compiler first;
but the warm-up is one step ahead of theirs, whose first step has rate 0.
"""

import math
from collections.abc import Callable
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit.messages import tr
from lora.config import ConfigError

SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: (1 + math.cos(math.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: 1.0,
}
"""The factor by progress, which grows from 0 to 1 between the warm-up and the end."""


def lr_factor(schedule: str, warmup: int, steps: int, step: int) -> float:
    """Return the factor of the highest learning rate at an optimizer step.

    Args:
        schedule: A key of ``SCHEDULES``.
        warmup: Steps in which the rate rises linearly; the last of them has the highest rate.
        steps: Steps of the whole run; below 1 for a run without end, whose rate does not fall.
        step: The optimizer step, from 0.
    """
    if steps < 1:
        return 1.0
    if step < warmup:
        # From lr / warmup on: a first step at rate 0 would learn nothing.
        return (step + 1) / warmup
    return SCHEDULES[schedule]((step - warmup) / max(1, steps - warmup))


def mean_factor(schedule: str) -> float:
    """Return the mean factor of the highest learning rate between the warm-up and the end."""
    points = 1000
    factors = (SCHEDULES[schedule]((i + 0.5) / points) for i in range(points))
    return round(math.fsum(factors) / points, 6)


def warmup_steps(warmup: float, steps: int) -> int:
    """Return how many of a run's optimizer steps have a rising learning rate.

    Args:
        warmup: A number of steps; below 1, a share of all steps.
        steps: Steps of the whole run.
    """
    return round(warmup if warmup >= 1 else warmup * steps)


def make_schedule(optimizer: Optimizer, schedule: str, warmup: float, steps: int) -> LambdaLR:
    """Return a scheduler that is stepped after each optimizer step; arguments as above."""
    return LambdaLR(optimizer, partial(lr_factor, schedule, warmup_steps(warmup, steps), steps))


def check_rate(lr: float, warmup: float) -> None:
    """Check the highest learning rate and the warm-up.

    Raises:
        ConfigError: One is out of its range.
    """
    if not 0 < lr < 1:
        raise ConfigError(
            tr("model.lr is {lr}; it must be above 0 and below 1 (2e-4 is usual)", lr=lr)
        )
    if not 0 <= warmup < math.inf:
        raise ConfigError(
            tr("model.warmup is {warmup}; give steps, or a share below 1", warmup=warmup)
        )
