"""What the rows of a search show of its settings: differences with their intervals."""

import math
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
from lit.searching.records import Search


@dataclass(frozen=True)
class Facts:
    """What a decision is made of.

    Args:
        compared: The settings that were compared, those with the lowest loss first.
        preferred: Those that the choosing rows prefer: the cheapest of the tied.
        taken: The preferred, or the config's own if the preferred are worse on the reporting rows.
        own: The config's own settings; None if their trial did not finish.
        place: Where the config's own settings are among those compared.
        gain_choose, gain_report: Preferred minus own on the choosing and on the reporting rows.
        flattery: By how much choosing flattered the gain: the loss that the preferred settings
            lose less on the reporting rows than on the choosing rows.
        over_base: The taken settings minus the base model on the reporting rows.
        seed_spread: The standard deviation, on the choosing rows, of runs that differ in the seed
            alone; None where all settings ran once.
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
    over_base: Difference | None
    seed_spread: float | None
    seeds: Seeds

    @property
    def tied(self) -> list[Candidate]:
        """The settings that cannot be told apart from the best."""
        return [one for one in self.compared if one.tied]


def gather(search: Search) -> Facts | None:
    """Return what the rows show, None where no trial can be compared."""
    compared = candidates(search, compared_trials(search))
    if not compared:
        return None
    key = getattr(search.trial(search.own), "key", None)
    own = next((one for one in compared if one.kept.key == key), None) or own_settings(search)
    preferred = cheapest([one for one in compared if one.tied])
    gain_choose = gain_report = None
    if own and own.settings != preferred.settings:
        choose = np.array(search.choose_labels, float)
        sums = [mean_sums([run.choose for run in one.runs]) for one in (preferred, own)]
        gain_choose = difference(sums[0], sums[1], choose)
        gain_report = _reported(search, preferred, report_sums(own))
    taken = own if own and outcome(gain_report) is Outcome.WORSE else preferred
    base = np.array(search.base_report)
    spread = SeedSpread.of([one.losses for one in compared])
    return Facts(
        compared=tuple(compared),
        preferred=preferred,
        taken=taken,
        own=own,
        place=_place(compared, preferred, own, gain_choose),
        gain_choose=gain_choose,
        gain_report=gain_report,
        flattery=_flattery(gain_choose, gain_report),
        over_base=_reported(search, taken, base if np.isfinite(base).all() else None),
        seed_spread=spread.value if spread.freedom else None,
        seeds=_seeds(preferred, own, gain_report or gain_choose, spread),
    )


def own_settings(search: Search) -> Candidate | None:
    """Return the config's own settings, None if their trial did not finish."""
    trial = search.trial(search.own)
    if trial is None:
        return None
    runs = [run for run in search.trials if run.key == trial.key and is_measured(run)]
    found = candidates(search, [run for run in runs if run.full_schedule] or runs)
    return found[0] if found else None


def report_sums(candidate: Candidate) -> np.ndarray | None:
    """Return the losses of the reporting rows, (rows,), the mean of the runs that have them."""
    runs = [run.report for run in candidate.runs if run.report is not None]
    runs = [run for run in runs if all(map(math.isfinite, run))]
    return mean_sums(runs) if runs else None


def report_loss(search: Search, candidate: Candidate) -> float | None:
    """Return the mean loss per label of the reporting rows."""
    sums, labels = report_sums(candidate), sum(search.report_labels)
    return None if sums is None or not labels else float(sums.sum() / labels)


def _reported(search: Search, one: Candidate, other: np.ndarray | None) -> Difference | None:
    """Return the difference of settings to other losses of the reporting rows."""
    sums = report_sums(one)
    if sums is None or other is None or not sum(search.report_labels):
        return None
    return difference(sums, other, np.array(search.report_labels, float))


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
    tied = among.tied if among else outcome(gain) is not Outcome.BETTER
    return Own.TIED if tied else Own.BEHIND


def _seeds(
    one: Candidate, own: Candidate | None, gain: Difference | None, spread: SeedSpread
) -> Seeds:
    """Return whether a gain is larger than what chance of rows and of seeds makes together."""
    if not spread.freedom or own is None or gain is None or gain.high is None:
        return Seeds.UNKNOWN
    counts = len(one.runs), len(own.runs)
    high = gain.widened(spread.reach(*counts, counts)).high
    return Seeds.SMALL if high is not None and high < 0 else Seeds.MATTER


def _flattery(choose: Difference | None, report: Difference | None) -> Difference | None:
    if choose is None or report is None:
        return None
    low, high = overlap(report, choose) or (None, None)
    return Difference(report.value - choose.value, low, high)
