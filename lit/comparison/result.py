"""The result of a comparison: what report.json holds."""

import math
from dataclasses import dataclass, field

from lit.run.metrics_file import relative_change

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


@dataclass(frozen=True)
class LossResult:
    """The loss of a set of rows under both models, in nats per token.

    Args:
        base, tuned: The mean losses.
        ci_low, ci_high: The 95% confidence interval of tuned minus base.
        rows: Rows that were measured.
        tokens: Labeled tokens of these rows.
        improved_rows: Rows with a lower loss under the tuned model.
        not_finite: The numbers of the rows whose loss is NaN or infinite, by model.
    """

    base: float
    tuned: float
    ci_low: float
    ci_high: float
    rows: int
    tokens: int
    improved_rows: int
    not_finite: dict[str, list[int]] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """Whether every number here is finite, so that a verdict has a meaning."""
        numbers = (self.base, self.tuned, self.ci_low, self.ci_high)
        return not any(self.not_finite.values()) and all(map(math.isfinite, numbers))


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
        chrf: The chrF score of each model's answers (0-100); None without reference answers.
        answers: The questions with both answers.
        pictures: File names of the pictures.
        notes: Sentences about how the rows were measured, and what differs from the run.
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
    chrf: dict[str, float] | None
    answers: list[AnswerPair]
    pictures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    no_answers: str = ""
    votes: VoteResult | None = None


def is_valid(result: Comparison) -> bool:
    """Return whether every measured number is finite and both models could answer."""
    losses = [loss for loss in (result.loss, result.forgetting) if loss is not None]
    return not result.no_answers and all(loss.finite for loss in losses)


def verdict(result: Comparison) -> str:
    """Return whether the adapter helped, as one sentence that the interval supports."""
    if not is_valid(result):
        return f"No verdict: {'; '.join(_invalid(result))}."
    if result.loss is None:
        return "There are no reference answers and so no losses: read the answers in the report."
    loss = result.loss
    change = (
        f"loss {loss.base:.3f} → {loss.tuned:.3f} ({relative_change(loss.base, loss.tuned):+.1%}), "
        f"difference {loss.tuned - loss.base:+.3f}, "
        f"95% interval {loss.ci_low:+.3f} … {loss.ci_high:+.3f}"
    )
    if loss.ci_high < 0:
        return f"The adapter is better: {change}."
    if loss.ci_low > 0:
        return f"The adapter is worse: {change}."
    return f"No difference was found: {change}, which includes zero. More rows narrow the interval."


def _invalid(result: Comparison) -> list[str]:
    """Return what is not finite, with the numbers of the rows."""
    reasons = []
    for name, loss in (("reference answers", result.loss), ("general text", result.forgetting)):
        if loss is None or loss.finite:
            continue
        rows = [
            f"{len(numbers)} of {loss.rows} rows under the {which} model ({_listed(numbers)})"
            for which, numbers in loss.not_finite.items()
            if numbers
        ]
        where = " and ".join(rows) or "the whole, though each row's loss is finite"
        reasons.append(f"the loss of the {name} is not finite for {where}")
    return [*reasons, *([result.no_answers] if result.no_answers else [])]


def _listed(numbers: list[int]) -> str:
    more = f" and {len(numbers) - LISTED_ROWS} more" if len(numbers) > LISTED_ROWS else ""
    return f"rows {', '.join(map(str, numbers[:LISTED_ROWS]))}{more}"
