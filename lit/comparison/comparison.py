"""Compare a base model with its adapter, from one copy of the weights."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np

from data.templates.variables import Value, read_values
from lit.answering.context import check_context, context_length
from lit.answering.generation import GenerationError
from lit.answering.sampling import NotFiniteError, Sampling
from lit.comparison.answers import answer_all, written
from lit.comparison.matching import Tokens, describe_coverage, measure_matching, tokens_of
from lit.comparison.pictures import draw_pictures
from lit.comparison.questions import (
    encode_answers,
    encode_prompt,
    encode_rows,
    general_text,
    read_questions,
    sizes_of_conversations,
)
from lit.comparison.result import Comparison, LossResult
from lit.comparison.run_settings import read_run_settings, unknown_settings
from lit.comparison.sources import changed_inputs, find_rows, measured_by
from lit.device.device import check_quantization, choose_device, traits
from lit.device.precision import base_dtype, check_precision, computing_in
from lit.fast_layers.library import library_for, use_fast_answers
from lit.measures.intervals import MIN_ROWS
from lit.measures.losses import MODELS, Losses, measuring_losses
from lit.measures.matching import MOST_ROWS
from lit.measures.own import OwnMetric
from lit.measures.sample import fair_order
from lit.measures.texts import measure_texts
from lit.messages import tr, tr_later, tr_mark
from lit.model.tuned import base_config, load, trained_values
from lit.packing.transformers_internals import loaded_from
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.progress import stage_bars
from lit.settings.budget import Budget
from lora.storage.adapter import read_config


def compare(
    adapter: Path,
    base: str | None,
    data: Path | None,
    questions_file: Path | None,
    folder: Path,
    max_answers: int | None,
    budget: float,
    metrics: Sequence[OwnMetric],
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
        max_answers: The most rows of ``data`` to answer; None for as many as the time allows.
        budget: Seconds for matching and answers. ``questions_file`` is answered in any case, and
            as many rows as an interval needs.
        metrics: A person's own measures of answers.
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
    found = read_run_settings(run)
    path, data_source = find_rows(run, data, questions_file is None, found)
    rows = read_questions(path) if path else []
    more = read_questions(questions_file) if questions_file else []
    chosen = choose_device(device)
    model_type = base_config(adapter, base).get_text_config().model_type
    trained = found or unknown_settings(adapter, traits(chosen), model_type)
    used = trained.changed(precision, quantize)
    if precision is None:
        used = used.fitted_to(traits(chosen), model_type)
    check_precision(used.precision, traits(chosen), model_type)
    check_quantization(used.quantize, traits(chosen))
    dtype = base_dtype(used.precision)
    print_rank0(tr("loading the model in {precision} …", precision=used.precision), note=True)
    model, tokenizer = load(adapter, base, template, used.quantize, dtype, chosen, template_kwargs)
    use_fast_answers(model, library_for(used.precision))
    notes = used.differences(trained)
    if found is None and used.quantize and quantize is None:
        notes.append(
            tr_later(
                "The base is loaded in {quantize}, as when the adapter was trained.",
                quantize=used.quantize,
            )
        )
    own, values = trained_values(adapter), read_values(tokenizer)
    notes += changed_inputs(own_base, base, template, own, values)
    if found is None and data is None and rows:
        notes.append(
            tr_later("{config} is missing, so the run's settings are unknown.", config=run.config)
        )
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
            tr_later(
                "The {examples} held-out examples are of {conversations} conversations, which "
                "count as {conversations} rows in the interval.",
                examples=len(rows),
                conversations=len(sizes),
            )
        )
    general = general_text(tokenizer, context_length(model))
    order = fair_order(len(rows))[: MOST_ROWS if max_answers is None else max_answers]
    questions = [*more, *(rows[i] for i in order)]
    prompts = [encode_prompt(question, tokenizer, *cut) for question in questions]
    check_context(model, prompts, sampling.max_new_tokens)
    pairs, no_answers = [], ""
    with stage_bars() as start_bar:
        losses = by_source = None
        known: dict[Tokens, np.ndarray] = {}
        with measuring_losses(model, used.precision) as measure_losses:
            if rows:
                bar = start_bar(tr_mark("losses"), 2 * len(examples))
                measured = measure_losses(examples, bar)
                known = dict(zip(map(tokens_of, examples), measured.means, strict=True))
                losses = measured.summed([len(row) for row in encoded])
                by_source = losses.summed(sizes)
            bar = start_bar(tr_mark("losses of general text"), 2 * len(general))
            forgetting = measure_losses(general, bar)
            end = Budget(budget)
            matched = measure_matching(
                measure_losses,
                [rows[i] for i in fair_order(len(rows))[:MOST_ROWS]],
                lambda conversations: encode_answers(conversations, tokenizer, *cut),
                Budget(budget / 2),
                start_bar(tr_mark("matching"), min(len(rows), MOST_ROWS)),
                known,
            )
        try:
            with computing_in(used.precision, model.device):
                pairs = answer_all(
                    model,
                    tokenizer,
                    questions,
                    prompts,
                    [*[(None, None)] * len(more), *_row_losses(losses, order)],
                    sampling,
                    batch_size,
                    len(more) + min(len(order), MIN_ROWS),
                    end,
                    start_bar(tr_mark("answers"), 2 * len(questions)),
                )
        except (GenerationError, NotFiniteError) as error:
            no_answers = str(error)
    # Rows in the order of the file, then the other questions.
    answered = dict(zip(order, pairs[len(more) :], strict=False))
    pairs = [*(answered[row] for row in sorted(answered)), *pairs[: len(more)]]
    return Comparison(
        adapter=str(adapter),
        base=loaded_from(model),
        date=date.today().isoformat(),
        seconds=time.perf_counter() - start,
        data_source=data_source,
        sampling=asdict(sampling),
        loss=LossResult.of(by_source) if by_source else None,
        forgetting=LossResult.of(forgetting),
        measures=[*matched.measures, *measure_texts(written(pairs), metrics)],
        answers=pairs,
        pictures=draw_pictures(folder, run, pairs, examples, tokenizer),
        notes=notes,
        answered=describe_coverage(len(rows), len(answered), matched),
        no_answers=no_answers,
    )


def _row_losses(losses: Losses | None, rows: Sequence[int]) -> list[tuple[float, float]]:
    if losses is None:
        return []
    base, tuned = (losses.rows(which) for which in MODELS)
    return [(float(base[row]), float(tuned[row])) for row in rows]
