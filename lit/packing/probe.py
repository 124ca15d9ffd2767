"""A few short rows of tokens, on which a model is checked."""

import torch
from transformers import PretrainedConfig

from data.planning.batch import collate
from data.types import IGNORE, Batch, Example

PROBE_LENGTHS = (9, 7, 8)
"""Tokens of the rows: few, since every run waits for them."""


def probe_examples(vocab_size: int) -> list[Example]:
    """Return three short rows of tokens that are spread evenly over a vocabulary.

    Every label but a row's first is set. The rows are the same on every rank and in every run.
    """
    total = sum(PROBE_LENGTHS)
    # A step that shares no factor with most vocabulary sizes, so that neighbors are far apart.
    ids = iter((1 + 7919 * i * max(1, vocab_size // total)) % vocab_size for i in range(total))
    rows = [[next(ids) for _ in range(length)] for length in PROBE_LENGTHS]
    return [Example(row, [IGNORE, *row[1:]]) for row in rows]


def probe_batch(config: PretrainedConfig, device: torch.device) -> Batch:
    """Return these rows for a model, laid end to end."""
    return collate(probe_examples(config.get_text_config().vocab_size)).to(device)
