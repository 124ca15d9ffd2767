"""Which tries are stopped early: Optuna's successive halving, and how far tries get on average."""

from collections.abc import Sequence

import optuna

VALIDATIONS = 9
"""Validations of a try that is not stopped early."""
REDUCTION = 3
RUNGS = (3, 9)
"""At these validations the best third goes on. After the first one a high learning rate and a high
rank are ahead of settings that are better in the end."""


def stops(others: Sequence[Sequence[float]], losses: Sequence[float]) -> bool:
    """Return whether a try should stop after its last validation.

    Args:
        others: The losses of the validations of each other try.
        losses: Those of this try.
    """
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=RUNGS[0], reduction_factor=REDUCTION
    )
    study = optuna.create_study(pruner=pruner)
    stopped = False
    for curve in [*others, losses]:
        trial, stopped = study.ask(), False
        for step, loss in enumerate(curve, 1):
            trial.report(loss, step)
            stopped = trial.should_prune()
    return stopped and len(losses) < VALIDATIONS


def expected_validations(number: int) -> float:
    """Return how many validations a try has on average, if a good one is good at all of them.

    Args:
        number: The place of the try among the tries, from 1. Which is the best is chance.
    """
    total, before = 0.0, 0
    for rung in RUNGS:
        # Of the tries so far one in ``rung / RUNGS[0]`` comes so far, and at least one.
        total += (rung - before) * max(1, number * RUNGS[0] // rung) / number
        before = rung
    return total
