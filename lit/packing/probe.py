"""A few short rows of tokens, on which a model is checked."""

import torch
from torch import Tensor
from transformers import PretrainedConfig

from data.planning.batch import collate
from data.types import IGNORE, Batch, Example

PROBE_LENGTHS = (9, 7, 8)
"""Tokens of the rows: few, since every run waits for them."""
SHARED_LENGTHS = (4, 3, 4, 3, 5)
"""Tokens of a beginning of three rows, of what two of them share besides, and of the rests."""


def probe_ids(vocab_size: int, total: int) -> list[int]:
    """Return tokens that are spread evenly over a vocabulary."""
    # A step that shares no factor with most vocabulary sizes, so that neighbors are far apart.
    return [(1 + 7919 * i * max(1, vocab_size // total)) % vocab_size for i in range(total)]


def probe_examples(vocab_size: int) -> list[Example]:
    """Return three short rows of tokens that are spread evenly over a vocabulary.

    Every label but a row's first is set. The rows are the same on every rank and in every run.
    """
    ids = iter(probe_ids(vocab_size, sum(PROBE_LENGTHS)))
    rows = [[next(ids) for _ in range(length)] for length in PROBE_LENGTHS]
    return [Example(row, [IGNORE, *row[1:]]) for row in rows]


def shared_probe(config: PretrainedConfig, device: torch.device) -> Batch:
    """Return three short rows that share a beginning, two of them more of it."""
    tokens = probe_ids(config.get_text_config().vocab_size, sum(SHARED_LENGTHS))
    everyone, two, *rests = torch.tensor(tokens).split(SHARED_LENGTHS)
    rows = [[everyone, rests[0]], [everyone, two, rests[1]], [everyone, two, rests[2]]]
    ids = [torch.cat(parts).tolist() for parts in rows]
    examples = [Example(row, [IGNORE] * (len(row) - 1) + row[-1:]) for row in ids]
    common = [0, SHARED_LENGTHS[0], sum(SHARED_LENGTHS[:2])]
    return collate(examples, neighbors=([0, 1, 2], common)).to(device)


def probe_batch(config: PretrainedConfig, device: torch.device) -> Batch:
    """Return these rows for a model, laid end to end."""
    return collate(probe_examples(config.get_text_config().vocab_size)).to(device)


def rows_of(batch: Batch) -> list[Tensor]:
    """Return the tokens of each row of a batch whose rows share nothing, (tokens,) each."""
    return [*batch.input_ids[0].split(batch.lengths)]


def with_another_end(row: Tensor) -> Tensor:
    """Return a row, (tokens,), with its first token in the place of its last."""
    changed = row.clone()
    changed[-1] = row[0]
    return changed
