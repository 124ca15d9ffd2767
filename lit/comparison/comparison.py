"""Measure a base model against its adapter, from one copy of the weights."""

import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.progress import Progress
from torchmetrics.text import CHRFScore
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.types import IGNORE, DataError, Example
from lit.comparison.measure import MODELS, Losses, losses
from lit.comparison.questions import Question, example, general_text, prompt_of, questions
from lit.comparison.report import AnswerPair, Comparison, LossResult
from lit.model.generation import Answer, Sampling, answers, use_model
from lit.model.tuned import load
from lit.report.pictures import answers_picture, example_picture, loss_picture
from lit.run.folder import RunFolder
from lit.run.metrics import losses as logged_losses
from lora.adapter import read_config

PICTURED_ANSWERS = 6
OnProgress = Callable[[int], None]


def compare(
    adapter: Path,
    base: str | None,
    data: Path | None,
    asked_file: Path | None,
    folder: Path,
    most_answers: int,
    template: str,
    quantize: str | None,
    batch_size: int,
    sampling: Sampling,
) -> Comparison:
    """Measure, answer, and draw the pictures into the folder.

    Args:
        adapter: Its folder; beside it lies the run it came from, if it was not moved.
        base: The base model, if it is not where the adapter says.
        data: Rows with answers; None for those that the run held out.
        asked_file: More questions, without answers or with.
        folder: Where the pictures go.
        most_answers: How many of the rows are answered, evenly spread.
        template: As in ``lit.model.tuned.load``.
        quantize: As in ``lit.model.base.load_base``.
        batch_size: Answers made at a time.
        sampling: The same for both.

    Raises:
        ConfigError, DataError: Something is not there, or cannot be read.
    """
    start = time.perf_counter()
    read_config(adapter)  # what is no adapter is said first
    run = RunFolder(adapter.absolute().parent)
    path, source = _source(run, data, needed=asked_file is None)
    rows = questions(path) if path else []
    extra = questions(asked_file) if asked_file else []
    model, tokenizer = load(adapter, base, template, quantize)
    examples = [example(row, tokenizer) for row in rows]
    general = general_text(tokenizer)
    chosen = _spread(len(rows), most_answers)
    asked = [rows[i] for i in chosen] + extra
    with _progress() as told:
        measured = None
        if rows:
            measured = losses(model, examples, told("losses", 2 * len(rows)))
        forgetting = losses(model, general, told("losses of general text", 2 * len(general)))
        told_answers = told("answers", 2 * len(asked))
        made = _answer_all(model, tokenizer, asked, sampling, batch_size, told_answers)
    pairs = []
    for place, row in enumerate(asked):
        loss: dict[str, Any] = {}
        if measured and place < len(chosen):
            loss = {f"{v}_loss": float(measured.rows(v)[chosen[place]]) for v in MODELS}
        pairs.append(_pair(row, made["base"][place], made["tuned"][place], **loss))
    folder.mkdir(parents=True, exist_ok=True)
    return Comparison(
        adapter=str(adapter),
        base=model.config._name_or_path,
        date=date.today().isoformat(),
        seconds=time.perf_counter() - start,
        source=source,
        sampling=asdict(sampling),
        loss=_result(measured) if measured else None,
        forgetting=_result(forgetting),
        chrf=_chrf(pairs),
        pairs=pairs,
        pictures=_draw(folder, run, pairs, examples, tokenizer),
    )


def _source(run: RunFolder, data: Path | None, needed: bool) -> tuple[Path | None, str]:
    """Where the rows come from, and a sentence about it for the report."""
    if data is not None:
        return data, f"Rows of {data}; whether the adapter trained on them is for you to know."
    if run.validation.is_file():
        return run.validation, "The rows are those that the run held out: it never trained on them."
    if needed:
        raise DataError(
            f"{run.validation} is not there, so no held-out rows are known: give --data or "
            "--questions"
        )
    return None, "Questions only."


def _spread(total: int, most: int) -> list[int]:
    """Up to ``most`` places, evenly over ``total``."""
    most = min(most, total)
    return [i * total // most for i in range(most)]


def _answer_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Question],
    sampling: Sampling,
    batch_size: int,
    told: OnProgress,
) -> dict[str, list[Answer]]:
    prompts = [prompt_of(row, tokenizer) for row in asked]
    made: dict[str, list[Answer]] = {}
    for which in MODELS:
        found = {}
        with use_model(model, which):
            for place, answer in answers(model, tokenizer, prompts, sampling, batch_size):
                found[place] = answer
                told(1)
        made[which] = [found[place] for place in range(len(asked))]
    return made


def _pair(row: Question, base: Answer, tuned: Answer, **loss: Any) -> AnswerPair:
    return AnswerPair(
        question=row.text,
        base=base.text,
        tuned=tuned.text,
        base_tokens=base.tokens,
        tuned_tokens=tuned.tokens,
        base_stopped=base.stopped,
        tuned_stopped=tuned.stopped,
        reference=row.reference,
        **loss,
    )


def _result(measured: Losses) -> LossResult:
    low, high = measured.interval()
    return LossResult(
        base=measured.mean("base"),
        tuned=measured.mean("tuned"),
        low=low,
        high=high,
        rows=len(measured.labels),
        tokens=int(measured.labels.sum()),
        wins=int((measured.tuned < measured.base).sum()),
    )


def _chrf(pairs: Sequence[AnswerPair]) -> dict[str, float] | None:
    known = [pair for pair in pairs if pair.reference]
    if not known:
        return None
    references = [[str(pair.reference)] for pair in known]
    return {
        which: 100
        * float(CHRFScore(n_word_order=0)([getattr(p, which) for p in known], references))
        for which in MODELS
    }


def _draw(
    folder: Path,
    run: RunFolder,
    pairs: Sequence[AnswerPair],
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
) -> list[str]:
    drawn = []
    if run.metrics.is_file():
        loss_picture(*logged_losses(run.metrics), folder / "training_loss.png")
        drawn.append("training_loss.png")
    shown = [pairs[i] for i in _spread(len(pairs), PICTURED_ANSWERS)]
    rows = [(pair.question, pair.base, pair.tuned) for pair in shown]
    # For other places than the report, which has the answers as text.
    answers_picture(rows, folder / "comparison_table.png")
    if examples:
        tokens = zip(examples[0].ids, examples[0].labels, strict=True)
        parts = [
            (str(tokenizer.decode([i for i, _ in group])), learned)
            for learned, group in groupby(tokens, key=lambda token: token[1] != IGNORE)
        ]
        example_picture(parts, folder / "dataset_example.png")
        drawn.append("dataset_example.png")
    return drawn


@contextmanager
def _progress() -> Any:
    """Bars on a terminal; on a pipe, nothing until the report."""
    with Progress(transient=True) as progress:

        def begin(name: str, total: int) -> OnProgress:
            task = progress.add_task(name, total=total)
            return lambda rows: progress.advance(task, rows)

        yield begin
