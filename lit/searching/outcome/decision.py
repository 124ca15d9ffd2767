"""Which settings a search takes, and what is known of them.

The choosing rows choose. What is said of the gain comes from the reporting rows, which chose
nothing.
"""

from dataclasses import dataclass

from lit.measures.intervals import MIN_ROWS
from lit.messages import tr
from lit.searching.outcome.facts import Facts, gather, own_settings
from lit.searching.outcome.reasons import explain, outcomes_of_trials
from lit.searching.outcome.rules import Tone, find_rule, outcome
from lit.searching.records import Search


@dataclass(frozen=True)
class Decision:
    """What was taken, and what was and was not learned.

    Args:
        kind: The kind of its rule; ``too few`` for too few rows, ``none`` where no trial finished.
        sentence: The decision itself.
        details: Sentences that it stands on.
        tone: How good it is.
        winner: The trial whose settings and adapter are taken; None where no trial can be used.
        facts: What it stands on; None where nothing can be compared.
    """

    kind: str
    sentence: str
    details: list[str]
    tone: Tone
    winner: int | None
    facts: Facts | None = None

    @property
    def text(self) -> str:
        """Everything as one paragraph."""
        return " ".join([self.sentence, *self.details])


def too_few_rows(choose: int, report: int) -> str:
    """Return why settings cannot be chosen with so many rows, empty if they can be."""
    if min(choose, report) >= MIN_ROWS:
        return ""
    return tr(
        "No settings are chosen: {choose} rows to choose by and {report} rows to report on are too "
        "few, each part needs {least}. The config's own settings are taken.",
        choose=choose,
        report=report,
        least=MIN_ROWS,
    )


def decide(search: Search) -> Decision:
    """Return which settings are taken, and why."""
    if reason := too_few_rows(len(search.choose_labels), len(search.report_labels)):
        own = own_settings(search)
        return Decision("too few", reason, [], "warn", own.kept.number if own else None)
    facts = gather(search)
    if facts is None:
        sentence = tr("No settings are chosen: no trial finished.")
        return Decision("none", sentence, [outcomes_of_trials(search)], "bad", None)
    found = outcome(facts.gain_report), outcome(facts.over_base)
    rule = find_rule(facts.place, *found, facts.seeds)
    sentence = tr(
        rule.sentence,
        winner=facts.taken.kept.number,
        preferred=facts.preferred.kept.number,
        compared=len(facts.compared),
        tied=len(facts.tied),
    )
    details = explain(search, facts)
    return Decision(rule.kind, sentence, details, rule.tone, facts.taken.kept.number, facts)
