"""What the measures together say of an adapter, as one sentence: a table of rules."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lit.measures.intervals import MIN_ROWS
from lit.measures.matching import NEAREST, SIMILAR
from lit.measures.measured import Group, Measured, Outcome
from lit.measures.reading import number, reading
from lit.messages import tr, tr_mark, tr_n

BETTER, WORSE = Outcome.BETTER, Outcome.WORSE
Tone = Literal["good", "warn", "bad"]
ANY = frozenset(Outcome)
NOT_BETTER = ANY - {BETTER}
NOT_WORSE = ANY - {WORSE}
NEITHER = ANY - {BETTER, WORSE}


class Rule(NamedTuple):
    """What is said where the outcomes of four measures are among those given."""

    style: frozenset[Outcome]
    topic: frozenset[Outcome]
    """Matching among answers of equal length, which are mostly about something else."""
    matching: frozenset[Outcome]
    """Matching among answers to similar questions."""
    truth: frozenset[Outcome]
    kind: str
    tone: Tone
    sentence: str


def _only(*outcomes: Outcome) -> frozenset[Outcome]:
    return frozenset(outcomes)


SHOWN, LOST = _only(BETTER), _only(WORSE)
MANNER_ONLY = tr_mark(
    "The adapter is better in manner only, and ties answers to questions less well."
)
WORSE_MATCHING = tr_mark("The adapter is worse: it ties answers to questions less well.")
MIXED = tr_mark("The adapter is better in one thing and worse in matching answers to questions.")
RULES = (
    # style, topic, matching, truth
    Rule(SHOWN, NOT_WORSE, NOT_WORSE, LOST, "mixed", "bad",
        tr_mark("The adapter is better in manner and worse in truth: it prefers wrong answers more "
        "often.")),
    Rule(ANY, ANY, ANY, LOST, "worse", "bad",
        tr_mark("The adapter is worse in truth: it prefers wrong answers more often.")),
    Rule(SHOWN, LOST, NOT_BETTER, NOT_BETTER, "manner", "warn", MANNER_ONLY),
    Rule(SHOWN, NOT_BETTER, LOST, NOT_BETTER, "manner", "warn", MANNER_ONLY),
    Rule(LOST, NOT_BETTER, NOT_BETTER, NOT_BETTER, "worse", "bad",
        tr_mark("The adapter is worse: the reference answers became less likely.")),
    Rule(NEITHER, LOST, NOT_BETTER, NOT_BETTER, "worse", "bad", WORSE_MATCHING),
    Rule(NEITHER, NOT_BETTER, LOST, NOT_BETTER, "worse", "bad", WORSE_MATCHING),
    Rule(LOST, ANY, ANY, ANY, "mixed", "bad",
        tr_mark("The adapter is better in matching or truth, and worse in manner.")),
    Rule(ANY, LOST, ANY, ANY, "mixed", "bad", MIXED),
    Rule(ANY, ANY, LOST, ANY, "mixed", "bad", MIXED),
    Rule(SHOWN, ANY, SHOWN, SHOWN, "truth", "good",
        tr_mark("The adapter is better in manner, in matching and in truth.")),
    Rule(SHOWN, ANY, ANY, SHOWN, "truth", "good",
        tr_mark("The adapter is better in manner and in truth.")),
    Rule(NEITHER, ANY, SHOWN, SHOWN, "truth", "good",
        tr_mark("The adapter is better in matching and in truth; in manner no difference is "
        "shown.")),
    Rule(NEITHER, ANY, ANY, SHOWN, "truth", "good",
        tr_mark("The adapter is better in truth; in manner no difference is shown.")),
    Rule(SHOWN, ANY, SHOWN, ANY, "matching", "good",
        tr_mark("The adapter is better in manner and in matching answers to questions.")),
    Rule(NEITHER, ANY, SHOWN, ANY, "matching", "good",
        tr_mark("The adapter is better in matching answers to questions; in manner no "
        "difference is shown.")),
    Rule(SHOWN, SHOWN, ANY, ANY, "topic", "warn",
        tr_mark("The adapter is better in manner and in topic; that it tells answers "
        "to similar questions apart is not shown.")),
    Rule(NEITHER, SHOWN, ANY, ANY, "topic", "warn",
        tr_mark("The adapter is better in topic alone; in manner no difference is shown.")),
    Rule(SHOWN, ANY, ANY, ANY, "manner", "warn",
        tr_mark("The adapter is better in manner; that it ties answers to questions better is not "
        "shown.")),
    Rule(ANY, ANY, ANY, ANY, "not shown", "warn", tr_mark("No difference was shown.")),
)  # fmt: skip
"""The first rule that fits decides. None with a good tone stands on the style alone."""


BESIDE = (Group.WRITTEN, Group.CONDUCT, Group.OWN, Group.FORGETTING)
"""Measures that no rule asks for. One of them that got worse is named, and no tone is good then."""


@dataclass(frozen=True)
class Verdict:
    """What was and was not learned.

    Args:
        kind: The kind of its rule, ``none`` where there are too few rows, or ``invalid``.
        sentence: The verdict itself.
        details: Sentences that the verdict stands on.
        tone: How good it is.
    """

    kind: str
    sentence: str
    details: list[str]
    tone: Tone

    @property
    def text(self) -> str:
        """Everything as one paragraph."""
        return " ".join([self.sentence, *self.details])


def judge(measures: Sequence[Measured]) -> Verdict:
    """Return the verdict of a comparison whose numbers are all finite."""
    style = _find(measures, Group.STYLE)
    if style is None:
        sentence = tr("There are no reference answers and so no losses: read the answers below.")
        return Verdict("none", sentence, _forgotten(measures), "warn")
    if style.outcome is Outcome.TOO_FEW:
        sentence = tr_n(
            "No verdict: {n} row with a reference answer is too few, an interval needs {least}.",
            "No verdict: {n} rows with a reference answer are too few, an interval needs {least}.",
            style.rows,
            least=MIN_ROWS,
        )
        return Verdict("none", sentence, _forgotten(measures), "warn")
    topic, matching = (_find(measures, Group.MATCHING, name) for name in (NEAREST, SIMILAR))
    truth = _find(measures, Group.TRUTH)
    asked = (style, topic, matching, truth)
    found = [x.outcome if x else Outcome.NOT_MEASURED for x in asked]
    rule = next(
        rule for rule in RULES if all(x in among for x, among in zip(found, rule[:4], strict=True))
    )
    details = [
        *_described(tr("Manner: the loss of the reference answers"), [style], ".3f"),
        *_described(
            tr("Matching: the right answer among others wins for"), [topic, matching], ".0%"
        ),
        *([] if topic or matching else [tr("Matching was not measured.")]),
        *_described(tr("Truth: the right answer beats"), [truth], ".0%"),
        *([] if truth else [tr("Truth was not measured: no row has wrong answers.")]),
        *_changed(measures, Group.WRITTEN, tr("The answers as written")),
        *_changed(measures, Group.CONDUCT, tr("Conduct")),
        *_changed(measures, Group.OWN, tr("Own measures")),
        *_forgotten(measures),
    ]
    sentence, worse = tr(rule.sentence), _worse_beside(measures)
    if not worse:
        return Verdict(rule.kind, sentence, details, rule.tone)
    sentence = tr("{sentence} Worse: {measures}.", sentence=sentence, measures="; ".join(worse))
    tone: Tone = "warn" if rule.tone == "good" else rule.tone
    return Verdict(rule.kind, sentence, details, tone)


def _worse_beside(measures: Iterable[Measured]) -> list[str]:
    """Return the names of the measures that no rule asks for and that got worse."""
    return [
        f"{tr(x.group)} ({tr(x.name)})"
        for x in measures
        if x.group in BESIDE and x.outcome == WORSE
    ]


def _find(measures: Iterable[Measured], group: Group, name: str | None = None) -> Measured | None:
    found = (x for x in measures if x.group == group and name in (None, x.name))
    return next(found, None)


def _described(subject: str, measured: Sequence[Measured | None], form: str) -> list[str]:
    parts = []
    for x in filter(None, measured):
        numbers = f"{x.base:{form}} → {x.tuned:{form}}"
        if x.group != Group.STYLE:
            guessing = tr("guessing {chance}", chance=f"{x.chance or 0:{form}}")
            numbers = f"{numbers} ({tr(x.name)}, {guessing})"
        parts.append(f"{numbers}, {reading(x)}")
    return [f"{subject} {'; '.join(parts)}."] if parts else []


def _changed(measures: Iterable[Measured], group: Group, subject: str) -> list[str]:
    """Say what of a group changed for sure, the bad first."""
    changes = [x for x in measures if x.group == group and x.outcome in (BETTER, WORSE)]
    changes.sort(key=lambda x: x.outcome != WORSE)
    parts = [
        f"{tr(x.name)} {number(x, x.base)} → {number(x, x.tuned)}, {tr(x.outcome)}" for x in changes
    ]
    return [f"{subject}: {'; '.join(parts)}."] if parts else []


def _forgotten(measures: Iterable[Measured]) -> list[str]:
    for x in measures:
        if x.group == Group.FORGETTING and x.outcome in (BETTER, WORSE):
            losses = {"base": x.base, "tuned": x.tuned}
            if x.outcome == WORSE:
                return [tr("It forgot general text: loss {base:.3f} → {tuned:.3f}.", **losses)]
            return [
                tr(
                    "It did not forget, but improved on general text: loss {base:.3f} → "
                    "{tuned:.3f}.",
                    **losses,
                )
            ]
    return []
