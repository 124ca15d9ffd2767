"""The sections of a search's report.

A new section is a function, and its line in SECTIONS.
"""

import math
from collections.abc import Callable, Sequence

from lit.messages import tr
from lit.report.page import Section
from lit.searching.outcome.decision import Decision
from lit.searching.outcome.facts import report_loss
from lit.searching.outcome.texts import (
    difference_text,
    loss_text,
    settings_text,
    short_name,
    state_text,
    time_text,
    value_text,
)
from lit.searching.outcome.ties import Candidate
from lit.searching.records import Search, Trial

MakeSection = Callable[[Search, Decision], Section | None]


def sections(search: Search, decision: Decision, pictures: Sequence[str]) -> list[Section]:
    """Return the sections that a search has something for, the verdict first.

    Args:
        search, decision: What is shown.
        pictures: File names of the pictures.
    """
    made = [make(search, decision) for make in SECTIONS]
    if pictures:
        made.insert(-1, Section(tr("Pictures"), "", pictures=pictures))
    return [section for section in made if section is not None]


def _verdict(search: Search, decision: Decision) -> Section:
    taken = search.trial(decision.winner) if decision.winner is not None else None
    parts = [decision.sentence]
    if taken:
        parts.append(tr("Taken: {settings}.", settings=settings_text(taken.settings)))
    return Section(tr("Verdict"), " ".join(parts), tone=decision.tone)


def _grounds(search: Search, decision: Decision) -> Section | None:
    text = " ".join([*decision.details, *search.notes])
    return Section(tr("What it stands on"), text) if text else None


def _taken(search: Search, decision: Decision) -> Section | None:
    """Show the settings that are taken beside the config's own."""
    own = search.trial(search.own)
    taken = search.trial(decision.winner) if decision.winner is not None else None
    if taken is None:
        return None
    before = own.settings if own else {}
    names = list(dict.fromkeys([*before, *taken.settings]))
    rows = [
        [name, *(value_text(x.get(name, "–")) for x in (before, taken.settings))] for name in names
    ]
    headers = [tr("setting"), tr("the config's own"), tr("taken")]
    return Section(tr("The settings"), "", headers, rows)


def _gain(search: Search, decision: Decision) -> Section | None:
    """Show the gain on rows that chose beside that on rows that chose nothing."""
    facts = decision.facts
    if facts is None:
        return None
    base = [
        sum(sums) / sum(labels) if all(map(math.isfinite, sums)) else None
        for sums, labels in (
            (search.base_choose, search.choose_labels),
            (search.base_report, search.report_labels),
        )
    ]
    named = {tr("the config's own settings"): facts.own}
    if facts.gain_choose or facts.own is None:
        named[tr("preferred by the choosing rows")] = facts.preferred
    rows = [[tr("the base model, no adapter"), *map(loss_text, base)]]
    rows += [
        [name, loss_text(one.loss), loss_text(report_loss(search, one))]
        for name, one in named.items()
        if one is not None
    ]
    gains = [difference_text(x) for x in (facts.gain_choose, facts.gain_report)]
    if facts.gain_choose:
        rows.append([tr("preferred minus own (95% interval)"), *gains])
    if facts.flattery:
        rows.append([tr("choosing flattered it by"), "", difference_text(facts.flattery)])
    text = tr(
        "Mean loss per label, in nats; lower is better. The figures of the choosing rows are of "
        "the settings that looked best there, which is partly luck: the figures of the reporting "
        "rows are those to believe."
    )
    headers = ["", tr("choosing rows"), tr("reporting rows")]
    return Section(tr("What is gained"), text, headers, rows)


def _compared(search: Search, decision: Decision) -> Section | None:
    facts = decision.facts
    if facts is None:
        return None
    headers = [
        *(tr("trials"), tr("settings"), tr("parameters"), tr("steps")),
        *(tr("loss, choosing rows"), tr("more than the best (interval)")),
        *(tr("loss, reporting rows"), tr("reading")),
    ]
    rows = [
        [
            ", ".join(str(run.number) for run in one.runs),
            settings_text(one.settings),
            *(f"{cost:,}" for cost in one.cost),
            loss_text(one.loss),
            "–" if one is facts.compared[0] else difference_text(one.to_best),
            loss_text(report_loss(search, one)),
            _reading(search, decision, one),
        ]
        for one in facts.compared
    ]
    text = tr(
        "Mean loss per label, in nats; lower is better; the mean of the runs where there are "
        "several. The intervals are 95% intervals over the choosing rows and, where it is known, "
        "what another seed changes, widened so that all of them hold at once. Settings whose "
        "interval reaches zero cannot be told apart from the best. Of those that the rows alone "
        "cannot tell apart the cheapest are taken: the fewest trainable parameters, then the "
        "fewest steps, then the lowest loss."
    )
    return Section(tr("The settings that were compared"), text, headers, rows)


def _reading(search: Search, decision: Decision, one: Candidate) -> str:
    facts, parts = decision.facts, []
    if facts is None:
        return ""
    if one.settings == facts.taken.settings:
        parts.append(tr("taken"))
    if facts.own and one.settings == facts.own.settings:
        parts.append(tr("the config's own"))
    if one is facts.compared[0]:
        parts.append(tr("lowest loss"))
    elif one.tied:
        parts.append(tr("not told apart"))
    else:
        parts.append(tr("worse"))
    return ", ".join(parts)


def _trials(search: Search, decision: Decision) -> Section | None:
    if not search.trials:
        return None
    headers = [
        *(tr("trial"), tr("settings"), tr("seed"), tr("learning rate"), tr("best loss")),
        *(tr("at epoch"), tr("steps"), tr("time"), tr("end")),
    ]
    text = tr(
        "The best loss is that of the choosing rows at the trial's best validation. After a "
        "constant learning rate and after the whole schedule losses are not comparable."
    )
    rows = [_trial_row(trial) for trial in search.trials]
    return Section(tr("All trials"), text, headers, rows)


def _trial_row(trial: Trial) -> list[str]:
    best = min(trial.curve, key=lambda point: point.loss, default=None)
    return [
        str(trial.number),
        settings_text(trial.settings),
        str(trial.seed),
        tr("whole schedule") if trial.full_schedule else tr("constant"),
        loss_text(best.loss if best else None),
        f"{best.epoch:.2f}" if best else "–",
        f"{trial.steps:,}",
        time_text(trial.seconds),
        state_text(trial),
    ]


def _method(search: Search, decision: Decision) -> Section:
    train, choose, report = search.rows
    names = list(dict.fromkeys(short_name(x) for trial in search.trials for x in trial.settings))
    parts = [
        tr(
            "The rows are in three parts: {train} train, {choose} choose, {report} report. Trials "
            "are stopped and settings are taken by the choosing rows alone, so the lowest loss "
            "there is partly luck; the reporting rows are measured once, at the end.",
            train=train,
            choose=choose,
            report=report,
        ),
        tr("Searched: {names}.", names=", ".join(names)) if names else "",
        tr("It took {used}.", used=time_text(search.used_s))
        if search.budget_s is None
        else tr(
            "It took {used} of {budget}.",
            used=time_text(search.used_s),
            budget=time_text(search.budget_s),
        ),
    ]
    return Section(tr("How this was measured"), " ".join(filter(None, parts)))


SECTIONS: tuple[MakeSection, ...] = (
    _verdict,
    _grounds,
    _gain,
    _taken,
    _compared,
    _method,
    _trials,
)
