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
from lit.comparison.votes import votes_section
from lit.measures.intervals import MIN_ROWS
from lit.measures.losses import MODELS
from lit.measures.measured import Measured
from lit.measures.reading import number, short_reading
from lit.messages import english, tr, tr_mark
from lit.report.page import Section, show_page, write_page
from lit.run.metrics_file import perplexity
from lora.storage.files import write_text

MakeSection = Callable[[Comparison], Section | None]


def write(result: Comparison, folder: Path) -> None:
    """Write report.json, report.md, report.html and the answers as text files."""
    sections = _sections(result)
    with english():
        judged = {"verdict": asdict(verdict(result))} | asdict(result)
    text = json.dumps(_json(judged), ensure_ascii=False, indent=2, allow_nan=False)
    write_text(folder / "report.json", replace_surrogates(text) + "\n")
    title = tr("{adapter} compared with its base", adapter=result.adapter)
    for name in ("report.md", "report.html"):
        write_page(folder / name, title, sections, folder)
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
    """Return the verdict and its figures as Markdown, for the adapter's model card: in English."""
    with english():
        found = verdict(result)
        cells = (_headers(), *measure_rows(all_measures(result)))
    head, *rest = (f"| {' | '.join(map(escape_markdown, row))} |" for row in cells)
    table = "\n".join([head, "|---" * len(HEADERS) + "|", *rest])
    text = " ".join([found.text, result.data_source, result.answered])
    return f"{escape_markdown(text)}\n\n{table}\n\nMeasured with lit.compare, {result.date}.\n"


def show(result: Comparison) -> None:
    """Print the report's short sections."""
    show_page(_sections(result, without=(_answers, _pictures)))


def _sections(result: Comparison, without: tuple[MakeSection, ...] = ()) -> list[Section]:
    """Return the sections that a result has something for."""
    made = (make(result) for make in SECTIONS if make not in without)
    return [section for section in made if section is not None]


def _verdict(result: Comparison) -> Section:
    found = verdict(result)
    text = " ".join([found.sentence, tr(result.data_source)])
    return Section(tr("Verdict"), text, tone=found.tone)


def _grounds(result: Comparison) -> Section:
    text = [*verdict(result).details, *map(tr, (result.answered, *result.notes))]
    return Section(tr("What it stands on"), " ".join(filter(None, text)))


HEADERS = (
    *("", tr_mark("base"), tr_mark("tuned"), tr_mark("95% interval of the difference")),
    *(tr_mark("rows"), tr_mark("reading")),
)


def _headers() -> list[str]:
    return [tr(name) for name in HEADERS]


def measure_rows(measures: Iterable[Measured]) -> list[list[str]]:
    """Return measures as rows of a table with ``HEADERS``."""
    return [
        [
            f"{tr(x.group)}: {tr(x.name)}",
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
    chances = [
        tr("{chance:.0%} for {name}", chance=x.chance, name=tr(x.name))
        for x in result.measures
        if x.chance is not None
    ]
    sentences = [
        tr(
            "Manner: mean loss per token of the reference answers, in nats; lower is better. "
            "Matching: the share of rows whose own answer has the highest score among answers of "
            "other rows, of equal length or to the most similar questions; truth: among the row's "
            "own wrong answers. The score is the mean log-probability of a token after the "
            "question minus that after an empty question."
        ),
        tr("Guessing gets {chances}.", chances=", ".join(chances)) if chances else "",
        tr(
            "Answers as written and conduct are of the answers below. General text is unrelated "
            "to the training data: a higher loss there means that the model forgot something. Each "
            "interval is the 95% interval of tuned minus base over rows, by itself; fewer than "
            "{least} rows have none.",
            least=MIN_ROWS,
        ),
    ]
    text = " ".join(filter(None, sentences))
    return Section(tr("What was measured"), text, _headers(), measure_rows(all_measures(result)))


def _losses(result: Comparison) -> Section:
    rows = [
        [
            name,
            f"{perplexity(loss.base):.2f} → {perplexity(loss.tuned):.2f}",
            tr("{improved} of {rows}", improved=loss.improved_rows, rows=loss.rows),
            str(loss.tokens),
        ]
        for name, loss in (
            (tr("reference answers"), result.loss),
            (tr("general text"), result.forgetting),
        )
        if loss is not None
    ]
    headers = ["", tr("perplexity"), tr("rows improved"), tr("tokens")]
    return Section(tr("Loss"), "", headers, rows)


def _votes(result: Comparison) -> Section | None:
    return votes_section(result.votes) if result.votes else None


def _answers(result: Comparison) -> Section:
    rows = []
    for pair in result.answers:
        losses = _losses_of(pair)
        question = f"{pair.question}\n\n[{losses}]" if losses else pair.question
        reference = f"\n\n{tr('or:')} ".join([pair.reference or "–", *pair.accepted])
        rows.append([question, pair.base_answer, pair.tuned_answer, reference])
    text = tr(
        "Both models answer with the same settings: {settings}. Brackets show the loss of the "
        "row's answers, base → tuned.",
        settings=", ".join(f"{name} {value:g}" for name, value in result.sampling.items()),
    )
    headers = [tr("question"), tr("base"), tr("tuned"), tr("reference")]
    return Section(tr("Answers"), text, headers, rows, wide=True)


def _losses_of(pair: AnswerPair) -> str:
    """Return both losses and which is lower; not so if they are equal or one is NaN."""
    base, tuned = pair.base_loss, pair.tuned_loss
    if base is None or tuned is None:
        return ""
    losses = f"{base:.2f} → {tuned:.2f}"
    if base == tuned or not math.isfinite(base - tuned):
        return losses
    return f"{losses}, {tr('tuned better') if tuned < base else tr('base better')}"


def _pictures(result: Comparison) -> Section:
    return Section(tr("Pictures"), "", pictures=result.pictures)


def _method(result: Comparison) -> Section:
    text = tr(
        "Adapter {adapter} on base {base}; {date}; {seconds:.0f} s. Both models use one copy of "
        "the weights, with the adapter switched off and on.",
        adapter=result.adapter,
        base=result.base,
        date=result.date,
        seconds=result.seconds,
    )
    return Section(tr("How this was measured"), text)


SECTIONS: tuple[MakeSection, ...] = (
    _verdict,
    _grounds,
    _measures,
    _losses,
    _votes,
    _answers,
    _pictures,
    _method,
)
