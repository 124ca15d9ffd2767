"""The sentences that a decision stands on."""

from collections import Counter
from collections.abc import Iterable

from lit.measures.measured import Outcome
from lit.messages import tr, tr_n
from lit.searching.outcome.facts import Facts
from lit.searching.outcome.rules import Own, Seeds, outcome
from lit.searching.outcome.texts import difference_text
from lit.searching.outcome.ties import Candidate
from lit.searching.records import Search


def explain(search: Search, facts: Facts) -> list[str]:
    """Return what the decision stands on, what was measured first."""
    found = (
        _gain(search, facts),
        _flattered(facts),
        _ties(facts),
        _ties_by_rows(facts),
        _why(facts),
        _base(search, facts),
        _seeds(facts),
        _kept(facts),
        _schedule(facts),
        outcomes_of_trials(search),
    )
    return [sentence for sentence in found if sentence]


def outcomes_of_trials(search: Search) -> str:
    """Say how many trials ended in which way."""
    states = Counter(trial.state for trial in search.trials)
    return tr_n(
        "Of {n} trial, {finished} finished, {stopped} stopped early and {failed} failed.",
        "Of {n} trials, {finished} finished, {stopped} stopped early and {failed} failed.",
        len(search.trials),
        finished=states["finished"],
        stopped=states["stopped early"],
        failed=states["failed"],
    )


def _gain(search: Search, facts: Facts) -> str:
    if facts.gain_report is None or facts.report_losses is None:
        return ""
    return tr(
        "On the {rows} reporting rows, which chose nothing, trial {number} has a loss of "
        "{loss:.4f} per label and the config's own settings have {own:.4f}: a difference of "
        "{difference}.",
        rows=len(search.report_labels),
        number=facts.preferred.kept.number,
        loss=facts.report_losses[0],
        own=facts.report_losses[1],
        difference=difference_text(facts.gain_report),
    )


def _flattered(facts: Facts) -> str:
    if facts.flattery is None or facts.gain_choose is None:
        return ""
    values = {
        "choose": difference_text(facts.gain_choose),
        "flattery": difference_text(facts.flattery),
    }
    if outcome(facts.flattery) is Outcome.WORSE:
        return tr(
            "On the choosing rows the difference was {choose}: choosing flattered it by "
            "{flattery}.",
            **values,
        )
    if facts.flattery.value <= 0:
        return tr(
            "On the choosing rows the difference was {choose}: choosing did not flatter it.",
            choose=values["choose"],
        )
    return tr(
        "On the choosing rows the difference was {choose}: choosing flattered it by {flattery}, "
        "which can be chance.",
        **values,
    )


def _ties(facts: Facts) -> str:
    tied, compared = len(facts.tied), len(facts.compared)
    if compared == 1:
        return ""
    values = {"compared": compared, "tied": tied, "numbers": _trials(facts.tied)}
    if facts.seed_spread is None:
        if tied == 1:
            return tr(
                "The choosing rows tell the best of {compared} from all others; what another seed "
                "changes is not known.",
                compared=compared,
            )
        return tr(
            "Of {compared} settings that were compared, {tied} cannot be told apart by the "
            "choosing rows: {numbers}.",
            **values,
        )
    if tied == 1:
        return tr(
            "The best of {compared} is better than all others by more than rows or seeds change.",
            compared=compared,
        )
    return tr(
        "Of {compared} settings that were compared, {tied} cannot be told apart: other rows or "
        "another seed could change their order: {numbers}.",
        **values,
    )


def _ties_by_rows(facts: Facts) -> str:
    if not 1 < len(facts.tied_by_rows) < len(facts.tied):
        return ""
    return tr(
        "By the rows alone {tied} of these cannot be told apart: {numbers}.",
        tied=len(facts.tied_by_rows),
        numbers=_trials(facts.tied_by_rows),
    )


def _trials(found: Iterable[Candidate]) -> str:
    return tr("trials {numbers}", numbers=", ".join(str(one.kept.number) for one in found))


def _why(facts: Facts) -> str:
    """Say what made the preferred settings those that are taken of the tied."""
    if len(facts.tied) == 1:
        return ""
    preferred, number = facts.preferred, facts.preferred.kept.number
    if len(facts.tied_by_rows) == 1:
        return tr(
            "Of these trial {number} is taken because it has the lowest loss: with the seeds that "
            "ran, the rows tell it from the others.",
            number=number,
        )
    small = [one for one in facts.tied_by_rows if one.cost[0] == preferred.cost[0]]
    if len(small) == 1:
        return tr(
            "Of these trial {number} is taken because it has the fewest trainable parameters: "
            "{parameters:,}.",
            number=number,
            parameters=preferred.cost[0],
        )
    if sum(one.cost == preferred.cost for one in small) == 1:
        return tr(
            "Of these {count} have the fewest trainable parameters, and trial {number} is taken "
            "because it has the fewest steps: {steps:,}.",
            count=len(small),
            number=number,
            steps=preferred.cost[1],
        )
    return tr(
        "Of these {count} have the fewest trainable parameters and steps, and trial {number} is "
        "taken because it has the lowest loss.",
        count=sum(one.cost == preferred.cost for one in small),
        number=number,
    )


def _base(search: Search, facts: Facts) -> str:
    if facts.over_base is None:
        return ""
    return tr(
        "The base model without an adapter has a loss of {base:.4f} on the reporting rows; with "
        "the adapter it changes by {difference}.",
        base=sum(search.base_report) / sum(search.report_labels),
        difference=difference_text(facts.over_base),
    )


def _seeds(facts: Facts) -> str:
    if facts.seed_spread is None:
        return ""
    if facts.seeds is Seeds.MATTER:
        return tr(
            "Another seed changes the losses of settings by different amounts, with a standard "
            "deviation of {spread:.4f} on the choosing rows: with other seeds other settings could "
            "be best.",
            spread=facts.seed_spread,
        )
    return tr(
        "Another seed changes the losses of settings by different amounts, with a standard "
        "deviation of {spread:.4f} on the choosing rows.",
        spread=facts.seed_spread,
    )


def _kept(facts: Facts) -> str:
    runs = facts.taken.runs
    if len(runs) == 1:
        return ""
    return tr(
        "The losses are means of {n} runs with different seeds; the adapter is that of trial "
        "{number}, which has the config's seed {seed}.",
        n=len(runs),
        number=facts.taken.kept.number,
        seed=facts.taken.kept.seed,
    )


def _schedule(facts: Facts) -> str:
    whole = [run.full_schedule for one in facts.compared for run in one.runs]
    if not all(whole):
        return tr(
            "No trial ran the whole schedule: the settings were compared after a constant learning "
            "rate."
        )
    if facts.own and facts.place is not Own.ONLY and not facts.own.kept.full_schedule:
        return tr(
            "The config's own settings did not run the whole schedule, so the difference to them "
            "has that of the schedule in it."
        )
    return ""
