"""Which tries get a whole run, and which settings a second seed."""

from typing import Any

import pytest

from lit.searching.finals import Finals, Shares
from lit.searching.records import Point, Trial
from lit.searching.trials.halving import VALIDATIONS
from lit.searching.trials.ledger import Job, Slot

OWN = Job("own", {"lr": 0.0}, 42)
DONE = [3.9, 3.8, 3.7, 3.6, 3.5, 3.45, 3.42, 3.41, 3.4]
assert len(DONE) == VALIDATIONS


def lower(losses: list[float], by: float) -> list[float]:
    return [loss - by for loss in losses]


def slot(number: int, kind: str, lr: float, losses: list[float], seed: int = 42) -> Slot:
    """A trial with a loss for each validation; a try with fewer than all was stopped early."""
    state = "finished" if kind != "try" or len(losses) == VALIDATIONS else "stopped early"
    curve = tuple(Point(step, step / 5, loss) for step, loss in enumerate(losses, 1))
    job = Job(kind, {"lr": lr}, seed)  # type: ignore[arg-type]
    whole = kind != "try"
    trial = Trial(
        *(number, job.settings, seed, state, "", curve, 9, 100, 1.0, whole),  # type: ignore[arg-type]
        choose=(min(losses),),
    )
    return Slot(number, job, tuple(losses), trial, False)


def rank(tries: list[Trial], most: int) -> list[Trial]:
    """The finished ones, the lowest loss first."""
    finished = [trial for trial in tries if trial.state == "finished"]
    return sorted(finished, key=lambda trial: sum(trial.choose or ()))[:most]


def lost(whole: list[Trial]) -> list[dict[str, Any]]:
    """Those that are worse than the best by more than 0.1."""
    losses = {trial.settings["lr"]: sum(trial.choose or ()) for trial in whole}  # the last run's
    return [{"lr": lr} for lr, loss in losses.items() if loss > min(losses.values()) + 0.1]


def planned(slots: list[Slot], shares: Shares) -> list[tuple[float, int]]:
    """The learning rate and the seed of each whole run, in order."""
    jobs = Finals(OWN, rank, lost).jobs(slots, shares)
    return [(job.settings["lr"], job.seed) for job in jobs]


OWN_RUN = slot(0, "own", 0.0, [3.5])
TRIES = {
    "one whose time had ended is where it would be if all had ended then": (
        [DONE, lower(DONE, 0.05), lower(DONE[:4], 0.2)],
        [3, 2, 1],
    ),
    "but not ahead of those that had a lower loss then": (
        [DONE, lower(DONE, 0.05), lower(DONE[:4], 0.02)],
        [2, 3, 1],
    ),
    "nor before the first comparison, which says too little": (
        [DONE, lower(DONE, 0.05), lower(DONE[:2], 0.2)],
        [2, 1, 3],
    ),
    "those that others stopped come last": (
        [DONE, lower(DONE, 0.3), lower(DONE, 0.2), lower(DONE[:3], 0.1)],
        [2, 3, 1, 4],
    ),
    "the later the better": ([DONE[:2], DONE[:3], DONE[:1]], [2, 1, 3]),
}


@pytest.mark.parametrize("name", TRIES)
def test_tries_are_compared_at_the_validation_that_they_have_in_common(name: str) -> None:
    curves, order = TRIES[name]
    tries = [slot(n, "try", float(n), losses) for n, losses in enumerate(curves, 1)]
    found = planned([OWN_RUN, *tries], Shares(len(tries), 1))
    assert found == [(float(number), 42) for number in order]


WHOLE = {
    "nothing is known yet": ([], [(2, 42), (1, 42), (0, 43), (2, 43), (1, 43)]),
    "all are tied": (
        [(2, 3.5, 42), (1, 3.5, 42), (0, 3.5, 43)],
        [(2, 42), (1, 42), (0, 43), (2, 43), (1, 43)],
    ),
    "one lost: its second run is for the next": (
        [(2, 3.5, 42), (1, 3.9, 42), (0, 3.5, 43)],
        [(2, 42), (1, 42), (0, 43), (2, 43), (3, 42)],
    ),
    "all lost: their second runs are for others": (
        [(2, 3.9, 42), (1, 3.9, 42), (0, 3.5, 43)],
        [(2, 42), (1, 42), (0, 43), (3, 42), (4, 42)],
    ),
    "one lost by its second run: no more than there is time for": (
        [(2, 3.5, 42), (1, 3.5, 42), (0, 3.5, 43), (2, 3.5, 43), (1, 4.5, 43)],
        [(2, 42), (1, 42), (0, 43), (2, 43), (1, 43)],
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_settings_that_lost_for_sure_get_no_second_seed(name: str) -> None:
    finals, expected = WHOLE[name]
    curves = [lower(DONE, 0.1), lower(DONE, 0.2), DONE, lower(DONE, -0.1)]
    tries = [slot(n, "try", float(n), losses) for n, losses in enumerate(curves, 1)]
    whole = [
        slot(n, "final", float(lr), [loss], seed) for n, (lr, loss, seed) in enumerate(finals, 5)
    ]
    shares = Shares(2, 2)
    found = planned([OWN_RUN, *tries, *whole], shares)
    assert found == [(float(lr), seed) for lr, seed in expected]
    assert len(found) <= shares.runs
