"""Whether the data suit the model and the settings: each doubt a reason.

A new doubt is a function, and its line in ``RULES`` of ``lit.preflight.verdict``.
"""

import math
import textwrap
from collections import Counter
from collections.abc import Iterator

import numpy as np
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase

from data.template import stop_token
from data.types import IGNORE, DataError
from lit.model.base import load_tokenizer, locate
from lit.preflight.finding import Finding
from lit.preflight.forecast import Forecast
from lit.settings.arguments import Arguments

FEW_ROWS = 50
OFTEN = 0.05
"""The share of cut or left-out rows that is worth a warning."""
SAME = 1 / 3
"""The share of rows with one and the same answer that is worth a warning."""
ROUND = 64
"""Proposed lengths are multiples of it."""
LOOKED_AT = 2000
"""Rows whose answers are compared, evenly spread."""


def lengths(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    """Rows beyond max_length, or beyond what the model was made for."""
    data, limit = arguments.datamodule, arguments.config.data.max_length
    beyond, read = data.store.report.beyond(), data.store.report.read
    if len(beyond) > OFTEN * read:
        every, most = (
            ROUND * math.ceil((limit + np.quantile(beyond, share)) / ROUND) for share in (1, 0.9)
        )
        yield Finding(
            f"{len(beyond) / read:.0%} of the rows are cut or left out at data.max_length {limit}: "
            f"{every} would hold all of them" + (f", {most} nine in ten" if most < every else "")
        )
    where = locate(data.base, data.revision)
    config = AutoConfig.from_pretrained(data.base, trust_remote_code=False, **where)
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = int(data.store.lengths[data.train_rows].max())
    if positions and longest > positions:
        yield Finding(
            f"the longest row has {longest} tokens, and the model was made for {positions}: lower "
            "data.max_length to that"
        )


def template(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    """A template that is not the one the model was trained with."""
    data = arguments.datamodule
    own = load_tokenizer(data.base, data.revision)
    ends = {own.eos_token_id, *_ends_of(data.base, data.revision)}
    stop = stop_token(data.tokenizer)
    if stop not in ends:
        yield Finding(
            f"the template ends an answer with {data.tokenizer.convert_ids_to_tokens(stop)}, and "
            f"the model ends its texts with {own.eos_token}, like a base model that never chatted: "
            "use data.template plain"
        )
    # Some base models carry a template whose end of an answer they never learned.
    elif data.template == "plain" and own.chat_template and _stop_of(own) in ends:
        yield Finding(
            "this model was trained to chat in a template of its own, and data.template is plain: "
            "use auto or chat, so that it builds on what it knows"
        )


def _stop_of(tokenizer: PreTrainedTokenizerBase) -> int | None:
    try:
        return stop_token(tokenizer)
    except DataError:
        # A template that cannot be used is a reason to take plain.
        return None


def _ends_of(base: str, revision: str | None) -> list[int]:
    """The tokens that end a text, as the model's own files say."""
    try:
        config = GenerationConfig.from_pretrained(base, **locate(base, revision))  # type: ignore[arg-type]
    except OSError:
        return []
    found = config.eos_token_id
    return found if isinstance(found, list) else [found]


def answers(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    """Too few rows, or one answer to most of them."""
    data = arguments.datamodule
    rows = data.train_rows
    if len(rows) < FEW_ROWS:
        yield Finding(f"{len(rows)} rows train: so few are learned by heart, not generalized")
    looked_at = rows[:: max(1, len(rows) // LOOKED_AT)]
    given = Counter(
        tuple(label for label in data.store.example(row).labels if label != IGNORE)
        for row in looked_at
    )
    answer, times = given.most_common(1)[0]
    if times > max(1, SAME * len(looked_at)):
        text = str(data.tokenizer.decode(list(answer), skip_special_tokens=True))
        yield Finding(
            f"{times / len(looked_at):.0%} of the rows have one and the same answer, "
            f"“{textwrap.shorten(text, 60, placeholder=' …')}”: it may become the answer to all"
        )
