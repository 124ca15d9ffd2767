"""How the learning rate rises and falls over a run: factors of the highest, by optimizer step.

The formulas are those of transformers, whose own would load half of torch's compiler first.
"""

import math
from collections.abc import Callable

SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda gone: (1 + math.cos(math.pi * gone)) / 2,
    "linear": lambda gone: 1 - gone,
    "constant": lambda gone: 1.0,
}
"""What is left of the rate, by the share of the run after its warm-up that is gone."""


def factor(shape: str, warmup: int, steps: int, step: int) -> float:
    """The factor of the highest learning rate.

    Args:
        shape: One of ``SHAPES``.
        warmup: Steps in which the rate rises from zero in a straight line.
        steps: Of the whole run.
        step: The optimizer step, from 0.
    """
    if step < warmup:
        return step / warmup
    return SHAPES[shape]((step - warmup) / max(1, steps - warmup))
