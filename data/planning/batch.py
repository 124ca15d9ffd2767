"""Join examples into one flat batch."""

from collections.abc import Sequence

import torch

from data.messages import tr
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
        raise DataError(tr("a row's first token has a label, and no token before it predicts it"))
    lengths = tuple(len(example.ids) for example in examples)
    labels = torch.tensor([[label for example in examples for label in example.labels]])
    # The first token of a row has no label, so no row predicts a token of the next.
    labeled = (labels[0] != IGNORE).nonzero()[:, 0]
    return Batch(
        input_ids=torch.tensor([[token for example in examples for token in example.ids]]),
        labels=labels,
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32),
        predicting=labeled - 1,
        targets=labels[0, labeled],
        lengths=lengths,
        step_labels=step_labels,
        rng_key=rng_key,
    )
