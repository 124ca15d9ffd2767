"""What the rows of a search show of its settings: differences with their intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lit.measures.differences import Difference, SeedSpread, difference, overlap
from lit.measures.measured import Outcome
from lit.searching.outcome.rules import Own, Seeds, outcome
from lit.searching.outcome.ties import (
    Candidate,
    candidates,
    cheapest,
    compared_trials,
    is_measured,
    mean_sums,
)
from lit.searching.records import Search, Trial


@dataclass(frozen=True)
class Facts:
    """What a decision is made of.

    Args:
        compared: The settings that were compared, those with the lowest loss first.
        preferred: Those that the choosing rows prefer: the cheapest of those tied by rows.
        taken: The preferred, or the config's own if the preferred are worse on the reporting rows.
        own: The config's own settings; None if their trial did not finish.
        place: Where the config's own settings are among those compared.
        gain_choose, gain_report: Preferred minus own on the choosing and on the reporting rows.
        flattery: By how much choosing flattered the gain: the loss that the preferred settings
            lose less on the reporting rows than on the choosing rows.
        report_losses: The two losses of ``gain_report``.
        over_base: The taken settings minus the base model on the reporting rows.
        seed_spread: The standard deviation, on the choosing rows, that a seed adds to the loss of a
            run beyond what it adds to all; None until two settings ran with the same two seeds.
        seeds: What that says of the gain.
    """

    compared: tuple[Candidate, ...]
    preferred: Candidate
    taken: Candidate
    own: Candidate | None
    place: Own
    gain_choose: Difference | None
    gain_report: Difference | None
    flattery: Difference | None
    report_losses: tuple[float, float] | None
    over_base: Difference | None
    seed_spread: float | None
    seeds: Seeds

    @property
    def tied(self) -> list[Candidate]:
        """The settings that cannot be told apart from the best."""
        return [one for one in self.compared if one.tied]

    @property
    def tied_by_rows(self) -> list[Candidate]:
        """The settings that the choosing rows alone cannot tell apart from the best."""
        return [one for one in self.compared if one.tied_by_rows]


def gather(search: Search) -> Facts | None:
    """Return what the rows show, None where no trial can be compared."""
    compared = candidates(search, compared_trials(search))
    if not compared:
        return None
    key = getattr(search.trial(search.own), "key", None)
    own = next((one for one in compared if one.kept.key == key), None) or own_settings(search)
    preferred = cheapest([one for one in compared if one.tied_by_rows])
    gain_choose = gain_report = report_losses = None
    pair = pair_of(preferred, own) if own and own.settings != preferred.settings else None
    if pair:
        sums = [mean_sums([run.choose for run in runs]) for runs in pair]
        gain_choose = difference(sums[0], sums[1], np.array(search.choose_labels, float))
        reported = [report_sums(runs) for runs in pair]
        gain_report = _reported(search, *reported)
        report_losses = _report_losses(search, *reported)
    taken = own if own and outcome(gain_report) is Outcome.WORSE else preferred
    spread = compared[0].spread
    base = np.array(search.base_report)
    measured = base if np.isfinite(base).all() else None
    return Facts(
        compared=tuple(compared),
        preferred=preferred,
        taken=taken,
        own=own,
        place=_place(compared, preferred, own, gain_choose),
        gain_choose=gain_choose,
        gain_report=gain_report,
        flattery=_flattery(gain_choose, gain_report),
        report_losses=report_losses,
        over_base=_reported(search, report_sums(taken.runs), measured),
        seed_spread=spread.value if spread.freedom else None,
        seeds=_seeds(gain_report or gain_choose, spread, len(pair[0]) if pair else 0),
    )


def own_settings(search: Search) -> Candidate | None:
    """Return the config's own settings, None if their trial did not finish."""
    trial = search.trial(search.own)
    if trial is None:
        return None
    runs = [run for run in search.trials if run.key == trial.key and is_measured(run)]
    found = candidates(search, [run for run in runs if run.full_schedule] or runs)
    return found[0] if found else None


def pair_of(one: Candidate, other: Candidate) -> tuple[tuple[Trial, ...], tuple[Trial, ...]]:
    """Return the runs of two settings that are compared: those with seeds that both have."""
    seeds = {run.seed for run in one.runs} & {run.seed for run in other.runs}
    if not seeds:
        return one.runs, other.runs
    first, second = (tuple(run for run in x.runs if run.seed in seeds) for x in (one, other))
    return first, second


def report_sums(runs: Sequence[Trial]) -> np.ndarray | None:
    """Return the losses of the reporting rows, (rows,), the mean of the runs that have them."""
    sums = [run.report for run in runs if run.report is not None]
    sums = [one for one in sums if all(map(math.isfinite, one))]
    return mean_sums(sums) if sums else None


def report_loss(search: Search, candidate: Candidate) -> float | None:
    """Return the mean loss per label of the reporting rows."""
    sums, labels = report_sums(candidate.runs), sum(search.report_labels)
    return None if sums is None or not labels else float(sums.sum() / labels)


def _report_losses(
    search: Search, one: np.ndarray | None, other: np.ndarray | None
) -> tuple[float, float] | None:
    labels = sum(search.report_labels)
    if one is None or other is None or not labels:
        return None
    return float(one.sum() / labels), float(other.sum() / labels)


def _reported(
    search: Search, one: np.ndarray | None, other: np.ndarray | None
) -> Difference | None:
    """Return the difference of two losses of the reporting rows."""
    if one is None or other is None or not sum(search.report_labels):
        return None
    return difference(one, other, np.array(search.report_labels, float))


def _place(
    compared: list[Candidate], preferred: Candidate, own: Candidate | None, gain: Difference | None
) -> Own:
    if own is None:
        return Own.ABSENT
    if own.settings == preferred.settings:
        if len(compared) == 1:
            return Own.ONLY
        return Own.CHEAPEST if sum(one.tied for one in compared) > 1 else Own.BEST
    among = next((one for one in compared if one.settings == own.settings), None)
    # Own settings that did not run the whole schedule are not among those compared.
    tied = among.tied_by_rows if among else outcome(gain) is not Outcome.BETTER
    return Own.TIED if tied else Own.BEHIND


def _seeds(gain: Difference | None, spread: SeedSpread, runs: int) -> Seeds:
    """Return whether a gain is larger than what chance of rows and of seeds makes together.

    Args:
        gain: The difference of two settings.
        spread: What a seed changes of differences.
        runs: Of each of the two settings.
    """
    if not spread.freedom or not runs or gain is None or gain.high is None:
        return Seeds.UNKNOWN
    high = gain.widened(spread.reach(runs, runs, (runs, runs))).high
    return Seeds.SMALL if high is not None and high < 0 else Seeds.MATTER


def _flattery(choose: Difference | None, report: Difference | None) -> Difference | None:
    if choose is None or report is None:
        return None
    low, high = overlap(report, choose) or (None, None)
    return Difference(report.value - choose.value, low, high)
