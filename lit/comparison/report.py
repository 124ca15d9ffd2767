"""A comparison as sections: the same in the terminal, in Markdown and in HTML.

A new section is a function, and its line in SECTIONS.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lit.report.page import Section, show_page, write_page
from lora.files import write_text


@dataclass(frozen=True)
class AnswerPair:
    """One question with both answers; losses where there is a reference answer."""

    question: str
    base: str
    tuned: str
    base_tokens: int
    tuned_tokens: int
    base_stopped: bool
    tuned_stopped: bool
    reference: str | None = None
    base_loss: float | None = None
    tuned_loss: float | None = None


@dataclass(frozen=True)
class LossResult:
    """Loss of reference texts under both models, in nats a token."""

    base: float
    tuned: float
    low: float
    high: float
    """The 95 % interval of tuned minus base."""
    rows: int
    tokens: int
    wins: int
    """Rows that the tuned model predicts better."""


@dataclass(frozen=True)
class Comparison:
    """Everything that was measured: what report.json holds."""

    adapter: str
    base: str
    date: str
    seconds: float
    source: str
    """Which rows were measured, and whether the adapter may have seen them."""
    sampling: dict[str, float]
    loss: LossResult | None
    forgetting: LossResult
    chrf: dict[str, float] | None
    pairs: list[AnswerPair]
    pictures: list[str] = field(default_factory=list)


def verdict(result: Comparison) -> str:
    """Whether the adapter helped, in one sentence that the interval supports."""
    if result.loss is None:
        return "No reference answers were given, so there is no loss to compare; read the answers."
    loss = result.loss
    change = (
        f"loss {loss.base:.3f} → {loss.tuned:.3f} ({loss.tuned / loss.base - 1:+.1%}), difference "
        f"{loss.tuned - loss.base:+.3f}, 95 % interval {loss.low:+.3f} … {loss.high:+.3f}"
    )
    if loss.high < 0:
        return f"The adapter is better: {change}."
    if loss.low > 0:
        return f"The adapter is worse: {change}."
    return f"No difference is shown: {change} includes zero. More rows would narrow it."


def _summary(result: Comparison) -> Section:
    return Section("Verdict", f"{verdict(result)} {result.source}")


def _losses(result: Comparison) -> Section:
    rows = []
    for name, loss in (
        ("reference answers", result.loss),
        ("general text (forgetting)", result.forgetting),
    ):
        if loss is not None:
            rows.append(
                [
                    name,
                    f"{loss.base:.4f}",
                    f"{loss.tuned:.4f}",
                    f"{loss.low:+.4f} … {loss.high:+.4f}",
                    f"{math.exp(loss.base):.2f} → {math.exp(loss.tuned):.2f}",
                    f"{loss.wins} of {loss.rows}",
                ]
            )
    text = (
        "Mean loss of a token, in nats; lower is better. The interval is of tuned minus base, from "
        "10,000 paired bootstrap samples of rows. General text is prose that has nothing to do "
        "with the training: a rise there is what the adapter unlearned."
    )
    headers = ["", "base", "tuned", "95 % interval", "perplexity", "tuned is better on"]
    return Section("Loss", text, headers, rows)


def _writing(result: Comparison) -> Section:
    pairs = result.pairs
    rows = []
    for which in ("base", "tuned"):
        tokens = [getattr(pair, f"{which}_tokens") for pair in pairs]
        stopped = sum(getattr(pair, f"{which}_stopped") for pair in pairs)
        chrf = f"{result.chrf[which]:.1f}" if result.chrf else "–"
        mean = sum(tokens) / max(1, len(tokens))
        rows.append([which, f"{stopped} of {len(pairs)}", f"{mean:.0f}", chrf])
    text = (
        "Whether answers end by themselves, how long they are, and chrF, the likeness of their "
        "character sequences to the reference answers (0–100, higher is more alike)."
    )
    return Section("Writing", text, ["", "stopped by itself", "mean tokens", "chrF"], rows)


def _answers(result: Comparison) -> Section:
    rows = []
    for pair in result.pairs:
        question = pair.question
        if pair.base_loss is not None and pair.tuned_loss is not None:
            better = "tuned" if pair.tuned_loss < pair.base_loss else "base"
            question += f"\n\n[{pair.base_loss:.2f} → {pair.tuned_loss:.2f}, {better} better]"
        rows.append([question, pair.base, pair.tuned, pair.reference or "–"])
    settings = ", ".join(f"{name} {value:g}" for name, value in result.sampling.items())
    return Section(
        "Answers",
        f"The same questions to both, with the same settings: {settings}. In brackets the loss of "
        "the reference answer under both.",
        ["question", "base", "tuned", "reference"],
        rows,
        wide=True,
    )


def _pictures(result: Comparison) -> Section:
    return Section("Pictures", "", pictures=result.pictures)


def _how(result: Comparison) -> Section:
    text = (
        f"Adapter {result.adapter} on {result.base}; {result.date}; {result.seconds:.0f} s. Both "
        "answers come from one copy of the weights, with the adapter switched off and on."
    )
    return Section("How this was measured", text)


SECTIONS: tuple[Callable[[Comparison], Section], ...] = (
    _summary,
    _losses,
    _writing,
    _answers,
    _pictures,
    _how,
)


def write(result: Comparison, folder: Path) -> None:
    """Write report.json, report.md, report.html and the answers as text files."""
    sections = [section(result) for section in SECTIONS]
    text = json.dumps(asdict(result), ensure_ascii=False, indent=2)
    write_text(folder / "report.json", text + "\n")
    for name in ("report.md", "report.html"):
        write_page(folder / name, f"{result.adapter} against its base", sections, folder)
    for which in ("base", "tuned"):
        answers = [f"{pair.question}\n\n{getattr(pair, which)}\n" for pair in result.pairs]
        write_text(folder / f"{which}_answers.txt", f"\n{'-' * 72}\n\n".join(answers))


def show(result: Comparison) -> None:
    """Print the report's short sections."""
    show_page(make(result) for make in SECTIONS if make not in (_answers, _pictures))
