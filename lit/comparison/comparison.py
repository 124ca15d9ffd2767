"""Compare a base model with its adapter, from one copy of the weights."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path

from data.templates.variables import Value, read_values, shown
from data.types import DataError
from lit.answering.generation import check_context, context_length
from lit.answering.sampling import NotFiniteError, Sampling
from lit.comparison.answers import answer_all, chrf
from lit.comparison.losses import MODELS, Losses, measure_losses
from lit.comparison.pictures import draw_pictures
from lit.comparison.questions import (
    encode_prompt,
    encode_rows,
    evenly_spread,
    general_text,
    read_questions,
    sizes_of_conversations,
)
from lit.comparison.result import Comparison, LossResult
from lit.comparison.run_settings import measured_by, read_run_settings, unknown_settings
from lit.device.device import check_quantization, choose_device, traits
from lit.device.precision import base_dtype, check_precision, computing_in
from lit.model.tuned import base_config, load, trained_values
from lit.packing.transformers_internals import loaded_from
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.progress import make_progress
from lora.storage.adapter import read_config

StartBar = Callable[[str, int], Callable[[int], None]]
"""Starts a progress bar from its name and total; the result advances it."""


def compare(
    adapter: Path,
    base: str | None,
    data: Path | None,
    questions_file: Path | None,
    folder: Path,
    max_answers: int,
    template: str,
    template_kwargs: dict[str, Value] | None,
    quantize: str | None,
    precision: str | None,
    device: str,
    batch_size: int,
    sampling: Sampling,
) -> Comparison:
    """Measure losses, generate answers, and draw the pictures.

    Args:
        adapter: The adapter's folder. If it lies in its run's folder, the run's held-out rows
            and losses are used.
        base: The base model, if it is not where the adapter says.
        data: Rows with reference answers; None for the run's held-out rows.
        questions_file: More questions, with or without reference answers.
        folder: The folder for the pictures; it exists.
        max_answers: Rows of ``data`` to answer, evenly spread.
        template, template_kwargs: As in ``lit.model.tuned.load``.
        quantize: As in ``lit.model.base.load_base``, or ``none``; None for the run's.
        precision: A key of ``lit.device.precision.PRECISIONS``; None for the run's,
            where the device computes in it.
        device: As in ``lit.device.device.choose_device``.
        batch_size: Answers generated at a time.
        sampling: How both models draw tokens.

    Raises:
        ConfigError, DataError: A file or the model does not exist or cannot be read, or a question
            and its answer do not fit into the model's context.
    """
    start = time.perf_counter()
    # Reports a folder without an adapter before anything else.
    own_base = read_config(adapter).get("base_model_name_or_path")
    run = RunFolder(adapter.absolute().parent)
    path, data_source = _data_source(run, data, needed=questions_file is None)
    rows = read_questions(path) if path else []
    more = read_questions(questions_file) if questions_file else []
    found = read_run_settings(run)
    chosen = choose_device(device)
    model_type = base_config(adapter, base).get_text_config().model_type
    trained = found or unknown_settings(adapter, traits(chosen), model_type)
    used = trained.changed(precision, quantize)
    if precision is None:
        used = used.fitted_to(traits(chosen), model_type)
    check_precision(used.precision, traits(chosen), model_type)
    check_quantization(used.quantize, traits(chosen))
    dtype = base_dtype(used.precision)
    print_rank0(f"loading the model in {used.precision} …", note=True)
    model, tokenizer = load(adapter, base, template, used.quantize, dtype, chosen, template_kwargs)
    notes = used.differences(trained)
    if found is None and used.quantize and quantize is None:
        notes.append(f"The base is loaded in {used.quantize}, as when the adapter was trained.")
    if base is not None and base != own_base:
        notes.append(f"The run trained on {own_base}; this comparison uses {base}.")
    if template != "auto":
        notes.append(f"The run trained with its own template; this comparison uses {template}.")
    own, values = trained_values(adapter), read_values(tokenizer)
    if template != "none" and own != values:
        notes.append(
            f"The run trained with template_kwargs {shown(own)}; this comparison uses "
            f"{shown(values)}."
        )
    if found is None and data is None and rows:
        notes.append(f"{run.config} is missing, so the run's settings are unknown.")
    # Only the run's own rows in its own template are cut as the run cut them.
    cut: tuple[int | None, str] = (None, "middle")
    if data is None and template == "auto" and own == values:
        cut = used.max_length, used.truncation
        notes += measured_by(run)
    encoded = encode_rows(rows, tokenizer, *cut)
    examples = [example for row in encoded for example in row]
    # Another file may name the same source in many rows that have nothing in common.
    sizes = [1] * len(rows) if data else sizes_of_conversations(rows)
    if len(sizes) < len(rows):
        notes.append(
            f"The {len(rows)} held-out examples are of {len(sizes)} conversations, which count as "
            f"{len(sizes)} rows in the interval."
        )
    general = general_text(tokenizer, context_length(model))
    answered = evenly_spread(len(rows), max_answers)
    questions = [rows[i] for i in answered] + more
    prompts = [encode_prompt(question, tokenizer, *cut) for question in questions]
    check_context(model, prompts, sampling.max_new_tokens)
    pairs, no_answers = [], ""
    with _progress() as start_bar:
        losses = by_source = None
        if rows:
            bar = start_bar("losses", 2 * len(examples))
            measured = measure_losses(model, examples, bar, used.precision)
            losses = measured.summed([len(row) for row in encoded])
            by_source = losses.summed(sizes)
        bar = start_bar("losses of general text", 2 * len(general))
        forgetting = measure_losses(model, general, bar, used.precision)
        try:
            with computing_in(used.precision, model.device):
                pairs = answer_all(
                    model,
                    tokenizer,
                    questions,
                    prompts,
                    _row_losses(losses, answered),
                    sampling,
                    batch_size,
                    start_bar("answers", 2 * len(questions)),
                )
        except NotFiniteError as error:
            no_answers = str(error)
    return Comparison(
        adapter=str(adapter),
        base=loaded_from(model),
        date=date.today().isoformat(),
        seconds=time.perf_counter() - start,
        data_source=data_source,
        sampling=asdict(sampling),
        loss=_result(by_source) if by_source else None,
        forgetting=_result(forgetting),
        chrf=chrf(pairs),
        answers=pairs,
        pictures=draw_pictures(folder, run, pairs, examples, tokenizer),
        notes=notes,
        no_answers=no_answers,
    )


def _data_source(run: RunFolder, data: Path | None, needed: bool) -> tuple[Path | None, str]:
    """Return the file of rows, and a sentence about it for the report."""
    if data is not None:
        return data, f"Rows of {data}; this report cannot know if the adapter was trained on them."
    if run.validation.is_file():
        return run.validation, "The rows were held out by the run: it never trained on them."
    if needed:
        raise DataError(
            f"{run.validation} does not exist, so there are no held-out rows: add --data FILE or "
            "--questions FILE"
        )
    return None, "Only questions were given."


def _row_losses(losses: Losses | None, rows: list[int]) -> list[tuple[float, float]]:
    if losses is None:
        return []
    base, tuned = (losses.rows(which) for which in MODELS)
    return [(float(base[row]), float(tuned[row])) for row in rows]


def _result(losses: Losses) -> LossResult:
    low, high = losses.interval()
    return LossResult(
        base=losses.mean("base"),
        tuned=losses.mean("tuned"),
        ci_low=low,
        ci_high=high,
        rows=len(losses.labels),
        tokens=int(losses.labels.sum()),
        improved_rows=int((losses.tuned < losses.base).sum()),
        not_finite={which: losses.not_finite(which) for which in MODELS},
    )


@contextmanager
def _progress() -> Iterator[StartBar]:
    """Show progress bars on a terminal, and on a pipe a line for each."""
    with make_progress() as progress:

        def start_bar(name: str, total: int) -> Callable[[int], None]:
            if not progress.console.is_terminal:
                print_rank0(f"{name}: {total // 2} under each of the two models …", note=True)
            task = progress.add_task(name, total=total, values="")
            progress.refresh()
            return lambda rows: progress.update(task, advance=rows, refresh=True)

        yield start_bar
