"""The report of a comparison: the same sections in the terminal, in Markdown and in HTML.

A new section is a function, and its line in SECTIONS.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.text import clean, escape_markdown, replace_surrogates
from lit.comparison.result import AnswerPair, Comparison, all_measures, verdict
from lit.comparison.verdict import number, short_reading
from lit.measures.intervals import MIN_ROWS
from lit.measures.losses import MODELS
from lit.measures.measured import Measured
from lit.report.page import Section, show_page, write_page
from lit.run.metrics_file import perplexity
from lora.storage.files import write_text


def write(result: Comparison, folder: Path) -> None:
    """Write report.json, report.md, report.html and the answers as text files."""
    sections = [section(result) for section in SECTIONS]
    judged = {"verdict": asdict(verdict(result))} | asdict(result)
    text = json.dumps(_json(judged), ensure_ascii=False, indent=2, allow_nan=False)
    write_text(folder / "report.json", replace_surrogates(text) + "\n")
    for name in ("report.md", "report.html"):
        write_page(folder / name, f"{result.adapter} compared with its base", sections, folder)
    for which in MODELS:
        texts = [
            f"{pair.question}\n\n{getattr(pair, f'{which}_answer')}\n" for pair in result.answers
        ]
        text = f"\n{'-' * 72}\n\n".join(texts)
        write_text(folder / f"{which}_answers.txt", clean(text))


def _json(value: Any) -> Any:
    """Return the value with null for each number that is not finite: JSON has no word for it."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def card_text(result: Comparison) -> str:
    """Return the verdict and its figures as Markdown, for the adapter's model card."""
    found = verdict(result)
    cells = (HEADERS, *measure_rows(all_measures(result)))
    head, *rest = (f"| {' | '.join(map(escape_markdown, row))} |" for row in cells)
    table = "\n".join([head, "|---" * len(HEADERS) + "|", *rest])
    text = " ".join([found.text, result.data_source, result.answered])
    return f"{escape_markdown(text)}\n\n{table}\n\nMeasured with lit.compare, {result.date}.\n"


def show(result: Comparison) -> None:
    """Print the report's short sections."""
    show_page(section(result) for section in SECTIONS if section not in (_answers, _pictures))


def _verdict(result: Comparison) -> Section:
    found = verdict(result)
    text = " ".join([found.sentence, result.data_source])
    return Section("Verdict", text, tone=found.tone)


def _grounds(result: Comparison) -> Section:
    text = [*verdict(result).details, result.answered, *result.notes]
    return Section("What it stands on", " ".join(filter(None, text)))


HEADERS = ("", "base", "tuned", "95% interval of the difference", "rows", "reading")


def measure_rows(measures: Iterable[Measured]) -> list[list[str]]:
    """Return measures as rows of a table with ``HEADERS``."""
    return [
        [
            f"{x.group}: {x.name}",
            number(x, x.base),
            number(x, x.tuned),
            _interval(x),
            str(x.rows),
            short_reading(x),
        ]
        for x in measures
    ]


def _interval(measured: Measured) -> str:
    if measured.low is None or measured.high is None:
        return "–"
    return " … ".join(number(measured, x, signed=True) for x in (measured.low, measured.high))


def _measures(result: Comparison) -> Section:
    chances = [f"{x.chance:.0%} for {x.name}" for x in result.measures if x.chance is not None]
    text = (
        "Manner: mean loss per token of the reference answers, in nats; lower is better. "
        "Matching: the share of rows whose own answer has the highest score among answers of other "
        "rows, of equal length or to the most similar questions; truth: among the row's own wrong "
        "answers. "
        "The score is the mean log-probability of a token after the question minus that after an "
        "empty question."
        + (f" Guessing gets {', '.join(chances)}." if chances else "")
        + " Answers as written and conduct are of the answers below. General text is unrelated to "
        "the training data: a higher loss there means that the model forgot something. Each "
        "interval is the 95% interval of tuned minus base over rows, by itself; fewer than "
        f"{MIN_ROWS} rows have none."
    )
    return Section("What was measured", text, HEADERS, measure_rows(all_measures(result)))


def _losses(result: Comparison) -> Section:
    rows = [
        [
            name,
            f"{perplexity(loss.base):.2f} → {perplexity(loss.tuned):.2f}",
            f"{loss.improved_rows} of {loss.rows}",
            str(loss.tokens),
        ]
        for name, loss in (("reference answers", result.loss), ("general text", result.forgetting))
        if loss is not None
    ]
    return Section("Loss", "", ["", "perplexity", "rows improved", "tokens"], rows)


def _answers(result: Comparison) -> Section:
    rows = []
    for pair in result.answers:
        question = pair.question
        if pair.base_loss is not None and pair.tuned_loss is not None:
            question += f"\n\n[{pair.base_loss:.2f} → {pair.tuned_loss:.2f}{_better(pair)}]"
        rows.append(
            [
                question,
                pair.base_answer,
                pair.tuned_answer,
                "\n\nor: ".join([pair.reference or "–", *pair.accepted]),
            ]
        )
    settings = ", ".join(f"{name} {value:g}" for name, value in result.sampling.items())
    return Section(
        "Answers",
        f"Both models answer with the same settings: {settings}. Brackets show "
        "the loss of the row's answers, base → tuned.",
        ["question", "base", "tuned", "reference"],
        rows,
        wide=True,
    )


def _better(pair: AnswerPair) -> str:
    """Return which model has the lower loss; nothing if they are equal or one is NaN."""
    base, tuned = pair.base_loss or 0.0, pair.tuned_loss or 0.0
    if base == tuned or not math.isfinite(base - tuned):
        return ""
    return f", {'tuned' if tuned < base else 'base'} better"


def _pictures(result: Comparison) -> Section:
    return Section("Pictures", "", pictures=result.pictures)


def _method(result: Comparison) -> Section:
    text = (
        f"Adapter {result.adapter} on base {result.base}; {result.date}; {result.seconds:.0f} s. "
        "Both models use one copy of the weights, with the adapter switched off and on."
    )
    return Section("How this was measured", text)


SECTIONS: tuple[Callable[[Comparison], Section], ...] = (
    _verdict,
    _grounds,
    _measures,
    _losses,
    _answers,
    _pictures,
    _method,
)
