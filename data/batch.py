"""Examples become one flat batch."""

from collections.abc import Sequence

import torch

from data.types import Batch, Example


def collate(examples: Sequence[Example], step_labels: int = 0, rng_key: int = 0) -> Batch:
    """Lay rows end to end.

    Args:
        examples: At least one row.
        step_labels: Labeled tokens of the optimizer step this micro-batch is part of.
        rng_key: What chance in this micro-batch is seeded by.
    """
    lengths = [len(example.ids) for example in examples]
    return Batch(
        input_ids=torch.tensor([[i for example in examples for i in example.ids]]),
        labels=torch.tensor([[i for example in examples for i in example.labels]]),
        position_ids=torch.cat([torch.arange(length) for length in lengths])[None],
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0, dtype=torch.int32),
        max_seqlen=max(lengths),
        step_labels=step_labels,
        rng_key=rng_key,
    )
