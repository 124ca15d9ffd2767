"""What a run will do, worked out from its plan."""

from dataclasses import dataclass

import numpy as np

from data.plan import Plan
from lit.settings.arguments import Arguments


@dataclass(frozen=True)
class Forecast:
    """The size of a run.

    Args:
        epochs: How often the rows are gone through; None where trainer.max_steps may end the run.
        steps: Optimizer steps in all; below 1 where nothing ends the run or begins it.
        warmup: Steps of rising learning rate.
        first: The plan of the first epoch.
        tokens, labels: Tokens of an epoch, and those that are learned.
    """

    epochs: int | None
    steps: int
    warmup: int
    first: Plan
    tokens: int
    labels: int


def forecast(arguments: Arguments) -> Forecast:
    """Plan a run whose data are set up."""
    data, trainer = arguments.datamodule, arguments.trainer
    steps = data.total_steps()
    return Forecast(
        epochs=trainer.max_epochs
        if trainer.max_steps < 0 and (trainer.max_epochs or 0) > 0
        else None,
        steps=steps,
        warmup=arguments.model.warmup_steps(steps),
        first=data.epoch(0),
        tokens=int(data.store.lengths[data.train_rows].sum()),
        labels=int(data.store.targets[data.train_rows].sum()),
    )


def largest(arguments: Arguments, forecast: Forecast) -> tuple[list[int], int]:
    """The micro-batch of the run with the most tokens: its rows' lengths, and its labels."""
    data = arguments.datamodule
    lengths = data.store.lengths[data.train_rows]
    targets = data.store.targets[data.train_rows]
    found: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))
    # Rows meet others in each epoch.
    for epoch in range(max(1, forecast.epochs or 1)):
        plan = forecast.first if epoch == 0 else data.epoch(epoch)
        ends = np.concatenate([[0], lengths[plan.order].cumsum()])
        tokens = ends[plan.starts[1:]] - ends[plan.starts[:-1]]
        place = int(tokens.argmax())
        if tokens[place] > found[0]:
            found = int(tokens[place]), plan.order[plan.starts[place] : plan.starts[place + 1]]
    return lengths[found[1]].tolist(), int(targets[found[1]].sum())
