"""Join examples into one flat batch."""

from collections.abc import Sequence

import torch

from data.types import IGNORE, Batch, DataError, Example


def collate(examples: Sequence[Example], step_labels: int = 0, rng_key: int = 0) -> Batch:
    """Lay rows end to end.

    Args:
        examples: At least one row.
        step_labels: Labeled tokens of the optimizer step that this micro-batch belongs to.
        rng_key: The seed of this micro-batch's dropout.

    Raises:
        DataError: A row's first token has a label: nothing before it could predict it.
    """
    if any(example.labels[0] != IGNORE for example in examples):
        raise DataError("a row's first token has a label, and no token before it predicts it")
    lengths = [len(example.ids) for example in examples]
    return Batch(
        input_ids=torch.tensor([[token for example in examples for token in example.ids]]),
        labels=torch.tensor([[label for example in examples for label in example.labels]]),
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32),
        max_seqlen=max(lengths),
        step_labels=step_labels,
        rng_key=rng_key,
    )
