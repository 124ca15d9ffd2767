"""The result of a comparison: what report.json holds."""

import math
from dataclasses import dataclass, field
from typing import Self

from lit.comparison.verdict import Verdict, judge
from lit.measures.losses import MODELS, Losses
from lit.measures.measured import LEAST_LOSS, Group, Measured, Outcome
from lit.messages import tr, tr_mark

LISTED_ROWS = 8
"""Row numbers that a verdict lists."""


@dataclass(frozen=True)
class AnswerPair:
    """One question with the answers of both models.

    Args:
        question: The question.
        base_answer, tuned_answer: The answers.
        base_tokens, tuned_tokens: Tokens of the answers.
        base_stopped, tuned_stopped: Whether the answers end with a stop token.
        reference: The reference answer, if there is one.
        base_loss, tuned_loss: The losses of the reference answer, if they were measured.
        accepted: Further right answers.
    """

    question: str
    base_answer: str
    tuned_answer: str
    base_tokens: int
    tuned_tokens: int
    base_stopped: bool
    tuned_stopped: bool
    reference: str | None = None
    base_loss: float | None = None
    tuned_loss: float | None = None
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class LossResult:
    """The loss of a set of rows under both models, in nats per token.

    Args:
        base, tuned: The mean losses.
        ci_low, ci_high: The 95% confidence interval of tuned minus base; None for fewer rows than
            an interval needs.
        rows: Rows that were measured.
        tokens: Labeled tokens of these rows.
        improved_rows: Rows with a lower loss under the tuned model.
        not_finite: The numbers of the rows whose loss is NaN or infinite, by model.
    """

    base: float
    tuned: float
    ci_low: float | None
    ci_high: float | None
    rows: int
    tokens: int
    improved_rows: int
    not_finite: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, losses: Losses) -> Self:
        """Return the result of measured rows."""
        low, high = losses.interval() or (None, None)
        return cls(
            base=losses.mean("base"),
            tuned=losses.mean("tuned"),
            ci_low=low,
            ci_high=high,
            rows=len(losses.labels),
            tokens=int(losses.labels.sum()),
            improved_rows=int((losses.tuned < losses.base).sum()),
            not_finite={which: losses.not_finite(which) for which in MODELS},
        )

    @property
    def finite(self) -> bool:
        """Whether every number here is finite, so that a verdict has a meaning."""
        numbers = (self.base, self.tuned, self.ci_low or 0.0, self.ci_high or 0.0)
        return not any(self.not_finite.values()) and all(map(math.isfinite, numbers))

    def measured(self, group: Group, name: str) -> Measured:
        """Return the same as a measure among others."""
        interval = self.ci_low, self.ci_high
        means = self.base, self.tuned
        return Measured(group, name, *means, *interval, self.rows, "lower", least=LEAST_LOSS)


@dataclass(frozen=True)
class VoteResult:
    """Blind votes on answers of both models.

    Args:
        tuned, base, equal: Votes for each model, and for none.
        ci_low, ci_high: The 95% interval of the tuned model's share of the votes for a model.
        p_value: Of the sign test.
    """

    tuned: int
    base: int
    equal: int
    ci_low: float
    ci_high: float
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured.

    Args:
        adapter: The adapter's folder.
        base: The base model.
        date: The day of the comparison, YYYY-MM-DD.
        seconds: How long it took.
        data_source: Which rows were measured, and whether the adapter was trained on them.
        sampling: The settings of both models' answers.
        loss: The loss of the reference answers; None if there are none.
        forgetting: The loss of general text, which is unrelated to the training data.
        measures: Every other measure, each with its interval.
        answers: The questions with both answers.
        pictures: File names of the pictures.
        notes: Sentences about how the rows were measured, and what differs from the run.
        answered: How many rows were answered and matched, and how they were chosen.
        no_answers: Why there are no answers, if a model cannot answer.
        votes: Blind votes of a person on other answers, if there are some.
    """

    adapter: str
    base: str
    date: str
    seconds: float
    data_source: str
    sampling: dict[str, float]
    loss: LossResult | None
    forgetting: LossResult
    measures: list[Measured]
    answers: list[AnswerPair]
    pictures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    answered: str = ""
    no_answers: str = ""
    votes: VoteResult | None = None


def is_valid(result: Comparison) -> bool:
    """Return whether every measured number is finite and both models could answer."""
    losses = [loss for loss in (result.loss, result.forgetting) if loss is not None]
    finite = all(loss.finite for loss in losses) and not _not_finite(result)
    return not result.no_answers and finite


def all_measures(result: Comparison) -> list[Measured]:
    """Return every measure, in the order of the report."""
    name = tr_mark("loss of the answers")
    style = [result.loss.measured(Group.STYLE, name)] if result.loss else []
    forgetting = result.forgetting.measured(Group.FORGETTING, tr_mark("loss of general text"))
    return [*style, *result.measures, forgetting]


def verdict(result: Comparison) -> Verdict:
    """Return what was and was not learned, as far as the intervals support it."""
    if not is_valid(result):
        text = tr("No verdict: {reasons}.", reasons="; ".join(_invalid(result)))
        return Verdict("invalid", text, [], "bad")
    return judge(all_measures(result))


def _invalid(result: Comparison) -> list[str]:
    """Return what is not finite, with the numbers of the rows."""
    reasons = []
    for name, loss in (
        (tr_mark("reference answers"), result.loss),
        (tr_mark("general text"), result.forgetting),
    ):
        if loss is None or loss.finite:
            continue
        rows = [
            tr(
                "{count} of {rows} rows under the {which} model (rows {listed})",
                count=len(numbers),
                rows=loss.rows,
                which=tr(which),
                listed=_listed(numbers),
            )
            for which, numbers in loss.not_finite.items()
            if numbers
        ]
        reasons.append(
            tr(
                "the loss of the {name} is not finite for {rows}",
                name=tr(name),
                rows=tr(" and ").join(rows),
            )
            if rows
            else tr(
                "the loss of the {name} is not finite for the whole, though each row's loss is "
                "finite",
                name=tr(name),
            )
        )
    reasons += [
        tr("{group} ({name}) is not finite", group=tr(x.group), name=tr(x.name))
        for x in _not_finite(result)
    ]
    return [*reasons, *([result.no_answers] if result.no_answers else [])]


def _not_finite(result: Comparison) -> list[Measured]:
    return [x for x in result.measures if x.outcome is Outcome.NOT_FINITE]


def _listed(numbers: list[int]) -> str:
    listed = ", ".join(map(str, numbers[:LISTED_ROWS]))
    more = len(numbers) - LISTED_ROWS
    return tr("{listed} and {more} more", listed=listed, more=more) if more > 0 else listed
