"""The report of a comparison: the same sections in the terminal, in Markdown and in HTML.

A new section is a function, and its line in SECTIONS.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.text import clean, replace_surrogates
from lit.comparison.losses import MODELS
from lit.comparison.result import AnswerPair, Comparison, verdict
from lit.report.page import Section, show_page, write_page
from lit.run.metrics_file import perplexity
from lora.storage.files import write_text

MakeSection = Callable[[Comparison], Section | None]


def write(result: Comparison, folder: Path) -> None:
    """Write report.json, report.md, report.html and the answers as text files."""
    sections = _sections(result)
    text = json.dumps(_json(asdict(result)), ensure_ascii=False, indent=2, allow_nan=False)
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


def show(result: Comparison) -> None:
    """Print the report's short sections."""
    show_page(_sections(result, without=(_answers, _pictures)))


def _sections(result: Comparison, without: tuple[MakeSection, ...] = ()) -> list[Section]:
    """Return the sections that a result has something for."""
    made = (make(result) for make in SECTIONS if make not in without)
    return [section for section in made if section is not None]


def _verdict(result: Comparison) -> Section:
    return Section("Verdict", " ".join([verdict(result), result.data_source, *result.notes]))


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
                    f"{loss.ci_low:+.4f} … {loss.ci_high:+.4f}",
                    f"{perplexity(loss.base):.2f} → {perplexity(loss.tuned):.2f}",
                    f"{loss.improved_rows} of {loss.rows}",
                ]
            )
    text = (
        "Mean loss per token, in nats; lower is better. The interval is the 95% interval of tuned "
        "minus base, from 10,000 paired bootstrap samples of rows. General text is prose that is "
        "unrelated to the training data: a higher loss there means that the model forgot something."
    )
    headers = ["", "base", "tuned", "95% interval", "perplexity", "rows improved"]
    return Section("Loss", text, headers, rows)


def _writing(result: Comparison) -> Section:
    pairs = result.answers
    rows = []
    for which in MODELS:
        tokens = [getattr(pair, f"{which}_tokens") for pair in pairs]
        stopped = sum(getattr(pair, f"{which}_stopped") for pair in pairs)
        chrf = f"{result.chrf[which]:.1f}" if result.chrf else "–"
        mean = sum(tokens) / max(1, len(tokens))
        rows.append([which, f"{stopped} of {len(pairs)}", f"{mean:.0f}", chrf])
    text = (
        "How many answers end with a stop token, how long they are, and chrF, the similarity of "
        "their character n-grams to the reference answers (0–100; higher is more similar)."
    )
    return Section("Writing", text, ["", "ended by itself", "mean tokens", "chrF"], rows)


def _votes(result: Comparison) -> Section | None:
    votes = result.votes
    if votes is None:
        return None
    decided = votes.tuned + votes.base
    share = f"{votes.tuned / decided:.0%}" if decided else "–"
    text = (
        "A person preferred one of two answers without knowing which model gave it, on the page of "
        "lit.serve. The interval is the exact 95% interval of the tuned model's share of the votes "
        "that prefer one; p is that of the sign test, for two models that are equally good."
    )
    headers = ["tuned better", "base better", "equal", "share of tuned", "95% interval", "p"]
    row = [
        *(str(votes.tuned), str(votes.base), str(votes.equal), share),
        f"{votes.ci_low:.0%} … {votes.ci_high:.0%}",
        f"{votes.p_value:.3f}",
    ]
    return Section("Blind votes", text, headers, [row])


def _answers(result: Comparison) -> Section:
    rows = []
    for pair in result.answers:
        question = pair.question
        if pair.base_loss is not None and pair.tuned_loss is not None:
            question += f"\n\n[{pair.base_loss:.2f} → {pair.tuned_loss:.2f}{_better(pair)}]"
        rows.append([question, pair.base_answer, pair.tuned_answer, pair.reference or "–"])
    settings = ", ".join(f"{name} {value:g}" for name, value in result.sampling.items())
    return Section(
        "Answers",
        f"Both models answer the same questions with the same settings: {settings}. Brackets show "
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


SECTIONS: tuple[MakeSection, ...] = (
    _verdict,
    _losses,
    _writing,
    _votes,
    _answers,
    _pictures,
    _method,
)
