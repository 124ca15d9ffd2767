"""What a search says of the settings that it took: a table of rules."""

from enum import StrEnum
from typing import Literal, NamedTuple

from lit.measures.differences import Difference
from lit.measures.measured import Outcome
from lit.messages import tr_mark

Tone = Literal["good", "warn", "bad"]


class Own(StrEnum):
    """Where the config's own settings are among those that were compared."""

    ONLY = "only"
    """No other settings can be compared."""
    BEST = "best"
    """They are taken, and every other is worse."""
    CHEAPEST = "cheapest"
    """They are taken, being the cheapest of those that cannot be told apart."""
    TIED = "tied"
    """Others are taken, which cannot be told apart from them on the choosing rows."""
    BEHIND = "behind"
    """Others are taken, and the choosing rows show that these are better."""
    ABSENT = "absent"
    """Their trial did not finish."""


class Seeds(StrEnum):
    """What runs that differ in the seed alone say of a gain."""

    SMALL = "small"
    """The gain is larger than what another seed changes of it."""
    MATTER = "matter"
    """Another seed can change as much."""
    UNKNOWN = "unknown"
    """No two settings ran with the same two seeds."""


BETTER, WORSE, NOT_SHOWN = Outcome.BETTER, Outcome.WORSE, Outcome.NOT_SHOWN
ANY = frozenset(Outcome)
ANYWHERE = frozenset(Own)
SEEDS = frozenset(Seeds)
OTHERS = frozenset({Own.TIED, Own.BEHIND})


class Rule(NamedTuple):
    """What is said where four facts are among those given."""

    own: frozenset[Own]
    gain: frozenset[Outcome]
    """The preferred settings against the config's own, on the reporting rows."""
    base: frozenset[Outcome]
    """The settings that are taken against the base model, on the reporting rows."""
    seeds: frozenset[Seeds]
    kind: str
    tone: Tone
    sentence: str


def _only(*outcomes: Outcome) -> frozenset[Outcome]:
    return frozenset(outcomes)


RULES = (
    Rule(ANYWHERE, ANY, _only(WORSE), SEEDS, "worse than base", "bad", tr_mark(
        "The best settings that were found are worse than no adapter: the base model has a lower "
        "loss on the reporting rows.")),
    Rule(OTHERS, _only(WORSE), ANY, SEEDS, "worse", "bad", tr_mark(
        "Nothing better than the config's own settings was found: the settings that the choosing "
        "rows preferred, those of trial {preferred}, are worse on the reporting rows. The config's "
        "own settings are kept.")),
    Rule(OTHERS, _only(BETTER), ANY, frozenset({Seeds.MATTER}), "seeds", "warn", tr_mark(
        "The adapter of trial {winner} is better than that of the config's own settings, but "
        "another seed can change the loss by as much as these settings do.")),
    Rule(OTHERS, _only(BETTER), ANY, frozenset({Seeds.UNKNOWN}), "better once", "good", tr_mark(
        "The adapter of trial {winner} is better than that of the config's own settings. What "
        "another seed changes is not known.")),
    Rule(OTHERS, _only(BETTER), ANY, SEEDS, "better", "good", tr_mark(
        "The settings of trial {winner} are better than the config's own settings.")),
    Rule(frozenset({Own.TIED}), _only(NOT_SHOWN), ANY, SEEDS, "tied", "warn", tr_mark(
        "Nothing better than the config's own settings was found: those of trial {winner} are "
        "taken, and cannot be told apart from the config's own.")),
    Rule(frozenset({Own.BEHIND}), _only(NOT_SHOWN), ANY, SEEDS, "not confirmed", "warn", tr_mark(
        "Nothing better than the config's own settings is confirmed: the choosing rows prefer "
        "those of trial {winner}, which are taken, and the reporting rows show no difference.")),
    Rule(OTHERS, ANY, ANY, SEEDS, "no report", "warn", tr_mark(
        "The settings of trial {winner} are taken; whether they are better than the config's own "
        "settings was not measured on rows that chose nothing.")),
    Rule(frozenset({Own.ONLY}), ANY, ANY, SEEDS, "only own", "warn", tr_mark(
        "The config's own settings are taken: no trial with other settings can be compared with "
        "them.")),
    Rule(frozenset({Own.BEST}), ANY, ANY, SEEDS, "own", "good", tr_mark(
        "Nothing better than the config's own settings was found: they are the best of the "
        "{compared} that were compared.")),
    Rule(frozenset({Own.CHEAPEST}), ANY, ANY, SEEDS, "own tied", "warn", tr_mark(
        "Nothing better than the config's own settings was found: they are taken from {tied} that "
        "cannot be told apart.")),
    Rule(ANYWHERE, ANY, ANY, SEEDS, "own failed", "warn", tr_mark(
        "The settings of trial {winner} are taken. The trial with the config's own settings did "
        "not finish, so nothing is known of a gain over them.")),
)  # fmt: skip
"""The first rule that fits decides."""


def find_rule(own: Own, gain: Outcome, base: Outcome, seeds: Seeds) -> Rule:
    """Return the rule for four facts."""
    found = (own, gain, base, seeds)
    return next(
        rule for rule in RULES if all(x in among for x, among in zip(found, rule[:4], strict=True))
    )


def outcome(difference: Difference | None) -> Outcome:
    """Return what an interval says of the first of two losses."""
    if difference is None:
        return Outcome.NOT_MEASURED
    if difference.low is None or difference.high is None:
        return Outcome.TOO_FEW
    if difference.high < 0:
        return BETTER
    return WORSE if difference.low > 0 else NOT_SHOWN
