"""Which settings of a search can be told apart by the choosing rows.

Every pair of settings could have been the best and the next, so the intervals are widened until all
of them hold at once (Tukey's range): in 19 of 20 searches no equal settings are called worse. Where
settings ran with two seeds, the intervals hold what another seed changes, too. Runs with the same
seed are compared with each other: they see the rows in the same order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lit.measures.differences import (
    Difference,
    SeedSpread,
    differences,
    separate_seeds,
    simultaneous_factor,
)
from lit.searching.records import Search, Sums, Trial

EQUAL = 1e-9
"""Nats per label; a smaller difference is a rounding error."""


@dataclass(frozen=True)
class Candidate:
    """Settings that can be compared, with the runs that have them.

    Args:
        runs: The trials with these settings that are compared, the lowest choosing loss first.
        loss: Mean loss per label of the choosing rows, the mean of the runs.
        to_best: Its difference to the lowest loss, with an interval over rows and, where they are
            known, seeds, that holds for all settings at once.
        tied: Whether it cannot be told apart from the settings with the lowest loss: with other
            rows or other seeds it could be the best.
        tied_by_rows: Whether the rows alone cannot tell it apart. The cheapest of these is taken.
        losses: Those of the single runs, which differ in the seed alone.
        spread: What a seed changes of the differences of all that are compared.
    """

    runs: tuple[Trial, ...]
    loss: float
    to_best: Difference
    tied: bool
    tied_by_rows: bool
    losses: tuple[float, ...]
    spread: SeedSpread

    @property
    def kept(self) -> Trial:
        """The first run, whose adapter is kept: it has the config's seed, so lit.fit repeats it."""
        return min(self.runs, key=lambda run: run.number)

    @property
    def settings(self) -> dict[str, Any]:
        """What the runs have in common."""
        return self.kept.settings

    @property
    def cost(self) -> tuple[int, int]:
        """Trainable parameters, and optimizer steps."""
        return max(run.parameters for run in self.runs), max(run.steps for run in self.runs)


def is_measured(trial: Trial) -> bool:
    """Return whether a trial ended by itself, with a finite loss for each choosing row."""
    sums = trial.choose
    return trial.state == "finished" and sums is not None and all(map(math.isfinite, sums))


def compared_trials(search: Search) -> list[Trial]:
    """Return the trials that are compared: those that ran the whole schedule, if there are some.

    A loss after a constant learning rate is no match for one after the whole schedule.
    """
    measured = [trial for trial in search.trials if is_measured(trial)]
    return [trial for trial in measured if trial.full_schedule] or measured


def candidates(search: Search, trials: Sequence[Trial], seeds: bool = True) -> list[Candidate]:
    """Return the settings of trials, those with the lowest loss on the choosing rows first.

    Args:
        search: For its rows.
        trials: Measured trials that can be compared; those with equal settings are averaged.
    """
    labels = np.array(search.choose_labels, float)
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.key, []).append(trial)
    runs = [sorted(group, key=lambda trial: sum(trial.choose or ())) for group in groups.values()]
    if not runs or not labels.sum():
        return []
    made = [[(run.seed, np.array(run.choose, float)) for run in group] for group in runs]
    sums, spread = separate_seeds(made, labels)
    order = sorted(range(len(runs)), key=lambda n: (sums[n].sum(), runs[n][0].number))
    runs, sums = [runs[n] for n in order], sums[order]
    to_best = differences(sums, sums[0], labels, simultaneous_factor(sums, labels))
    counts = [len({run.seed for run in group}) for group in runs]
    found = []
    for n, (group, apart) in enumerate(zip(runs, to_best, strict=True)):
        by_rows = _reaches_zero(apart)
        if n:
            apart = apart.widened(spread.reach(counts[n], counts[0], counts))
        tied = _reaches_zero(apart)
        losses = tuple(float(sum(run.choose or ()) / labels.sum()) for run in group)
        loss = float(np.mean(losses))
        found.append(Candidate(tuple(group), loss, apart, tied, by_rows, losses, spread))
    return found


def _reaches_zero(apart: Difference) -> bool:
    """Return whether the interval of a difference to the lowest loss reaches zero."""
    return apart.low is None or apart.low <= EQUAL


def cheapest(tied: Sequence[Candidate]) -> Candidate:
    """Return the settings with the fewest parameters, then steps, then the lowest loss."""
    return min(tied, key=lambda one: (*one.cost, one.loss))


def finalists(search: Search, most: int) -> list[Trial]:
    """Return the trials whose settings deserve the whole schedule, each settings once.

    They are the config's own settings, the best, the cheapest of those tied with it, and the next
    best ones.

    Args:
        search: With trials that did not run the whole schedule.
        most: How many are wanted, with the config's own.
    """
    screened = [x for x in search.trials if is_measured(x) and not x.full_schedule]
    found = candidates(search, screened)
    tied = [one for one in found if one.tied_by_rows]
    ranked = [*found[:1], *([cheapest(tied)] if tied else []), *found[1:]]
    own = [one for one in found if any(run.number == search.own for run in one.runs)]
    return list({id(one): one.kept for one in [*own, *ranked]}.values())[:most]


def mean_sums(runs: Sequence[Sums | None]) -> np.ndarray:
    """Return the mean of the runs' losses of each row, (rows,)."""
    return np.array([run for run in runs if run is not None], float).mean(0)
