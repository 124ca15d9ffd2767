"""Rules on whether the data suit the model and the settings.

A new rule is a function, and its line in ``RULES`` of ``lit.preflight.verdict``.
"""

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterator

import numpy as np
from transformers import AutoConfig, GenerationConfig

from data.template import stop_token
from data.templates.variables import unread
from data.types import IGNORE, DataError
from lit.messages import tr
from lit.model.base import load_tokenizer, locate
from lit.preflight.finding import Finding
from lit.preflight.forecast import Forecast
from lit.settings.arguments import Arguments

FEW_ROWS, ENOUGH_ROWS = 50, 200
MAX_SHORTENED = 0.05
"""The share of rows that are cut or left out above which a run gets a warning."""
MAX_EQUAL = 1 / 3
"""The share of rows with the same answer above which a run gets a warning."""
LENGTH_STEP = 64
"""Proposed lengths are multiples of it."""
SAMPLED_TEXTS = 200
"""Rows whose words are counted, evenly spread."""
MAX_TOKENS_PER_WORD = 4
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")
"""A word, or a character of a script without spaces."""
SAMPLED_ROWS = 2000
"""Rows whose answers are compared, evenly spread."""


def check_lengths(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    """Find rows that are longer than max_length, or than the model supports."""
    data, limit = arguments.datamodule, arguments.config.data.max_length
    report = data.store.report
    # A row that is left out counts as one example.
    beyond, read = report.excess_tokens(), report.read - report.used + report.examples
    if len(beyond) > MAX_SHORTENED * read:
        fits_all, fits_most = (
            LENGTH_STEP * math.ceil((limit + np.quantile(beyond, share)) / LENGTH_STEP)
            for share in (1, 0.9)
        )
        yield Finding(
            tr(
                "{count:.0%} of the {unit} are longer than data.max_length {limit} and are cut "
                "or left out: add --data.max_length {fits_all}, which fits all of them",
                count=len(beyond) / read,
                unit=tr(report.unit),
                limit=limit,
                fits_all=fits_all,
            )
            + (
                tr(", or {fits_most}, which fits 90% of them", fits_most=fits_most)
                if fits_most < fits_all
                else ""
            )
        )
    where = locate(data.base, data.revision)
    config = AutoConfig.from_pretrained(data.base, trust_remote_code=False, **where)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = int(data.store.lengths[data.train_rows].max())
    if positions and longest > positions:
        yield Finding(
            tr(
                "the longest row has {longest} tokens, but the model supports {positions}: add "
                "--data.max_length {positions}",
                longest=longest,
                positions=positions,
            )
        )


def check_vocabulary(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    """Find tokens that the model has no embedding for, and texts in a language it hardly knows."""
    data = arguments.datamodule
    where = locate(data.base, data.revision)
    config = AutoConfig.from_pretrained(data.base, trust_remote_code=False, **where)
    tokens, rows = len(data.tokenizer), config.get_text_config().vocab_size
    if tokens > rows:
        yield Finding(
            tr(
                "the tokenizer has {tokens} tokens, but the model's embedding has {rows} rows: "
                "give the model with its own tokenizer",
                tokens=tokens,
                rows=rows,
            ),
            fatal=True,
        )
    sampled = data.train_rows[:: max(1, len(data.train_rows) // SAMPLED_TEXTS)]
    texts = [turn.content for row in sampled for turn in data.store.messages(row)]
    words = [word for text in texts for word in WORD.findall(text)]
    pieces = len(data.tokenizer(" ".join(words), add_special_tokens=False)["input_ids"])
    if pieces > MAX_TOKENS_PER_WORD * len(words):
        yield Finding(
            tr(
                "the tokenizer needs {pieces:.1f} tokens for a word of these texts, and more "
                "than {max_tokens_per_word} mean a language that it hardly knows: the model "
                "learns such rows slowly; choose a base model that was trained on this language",
                pieces=pieces / len(words),
                max_tokens_per_word=MAX_TOKENS_PER_WORD,
            )
        )


def check_template(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    """Find a chat template that differs from the one the model was trained with.

    And settings that the template does not read.
    """
    data = arguments.datamodule
    if text := unread(data.tokenizer):
        yield Finding(tr("data.template_kwargs: {said}", said=text))
    ends = {data.tokenizer.eos_token_id, *_end_tokens(data.base, data.revision)}
    stop = stop_token(data.tokenizer)
    if stop not in ends:
        yield Finding(
            tr(
                "the template ends an answer with {end}, but the model ends "
                "its texts with {eos_token}, as a base model without chat training does: add "
                "--data.template plain",
                end=data.tokenizer.convert_ids_to_tokens(stop),
                eos_token=data.tokenizer.eos_token,
            )
        )
    # Some base models ship a template with an end token that they never learned.
    elif data.template == "plain" and _own_stop(data.base, data.revision) in ends:
        yield Finding(
            tr(
                "data.template is plain, but this model was trained with a chat template: add "
                "--data.template auto to train in that one"
            )
        )


def _own_stop(base: str, revision: str | None) -> int | None:
    """Return the token that ends an answer in the model's own template, if it has one."""
    tokenizer = load_tokenizer(base, revision)
    if not tokenizer.chat_template:
        return None
    try:
        return stop_token(tokenizer)
    except DataError:
        # If the template cannot be used, plain is the right choice.
        return None


def _end_tokens(base: str, revision: str | None) -> list[int]:
    """Return the tokens that end a text, from the model's generation config."""
    try:
        config = GenerationConfig.from_pretrained(base, **locate(base, revision))  # type: ignore[arg-type]
    except OSError:
        return []
    ends = config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def check_answers(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    """Find too few rows, or one answer that many rows share."""
    data = arguments.datamodule
    rows = data.train_rows
    if len(rows) < FEW_ROWS:
        yield Finding(
            tr(
                "{count} {unit} train: the model will memorize them; {enough_rows} or more "
                "generalize better",
                count=len(rows),
                unit=tr(data.store.report.unit),
                enough_rows=ENOUGH_ROWS,
            )
        )
    sampled = rows[:: max(1, len(rows) // SAMPLED_ROWS)]
    counts = Counter(
        tuple(label for label in data.store.example(row).labels if label != IGNORE)
        for row in sampled
    )
    answer, count = counts.most_common(1)[0]
    if count > max(1, MAX_EQUAL * len(sampled)):
        text = str(data.tokenizer.decode(list(answer), skip_special_tokens=True))
        yield Finding(
            tr(
                "{count:.0%} of the rows have the same answer, “{said}”: the model may give it "
                "to every question; remove such rows, or add rows with other answers",
                count=count / len(sampled),
                said=textwrap.shorten(text, 60, placeholder=" …"),
            )
        )
