"""The embedded model with an adapter, and batches for it, as the benchmarks of a step time them."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from data.planning.batch import collate
from data.types import IGNORE, Batch, Example
from lit.fast_layers.library import choose_library, fast_kinds
from lit.fast_layers.product_times import BF16, TORCH
from lit.fast_layers.table import use_bf16_products, use_fast_layers
from lit.model.base import load_base
from lit.packing.pack import pack
from lora.config import LoRAConfig
from lora.injection import inject

MODEL = "models/SmolLM2-135M-Instruct"


def load_adapted(
    config: LoRAConfig,
    fast_layers: bool = True,
    dtype: torch.dtype = torch.float32,
    library: str = "",
) -> PreTrainedModel:
    """Load the embedded model, put an adapter on it, and set it to training mode.

    Args:
        config: The adapter.
        fast_layers: Use the fast layers, as lit.fit does.
        dtype: The dtype of the base.
        library: What computes frozen layers; empty to choose, as lit.fit does in float32.
    """
    torch.manual_seed(0)
    model: PreTrainedModel = load_base(MODEL, dtype=dtype)
    torch.manual_seed(0)
    inject(model, config)
    if library == BF16:
        use_bf16_products(model)
    if fast_layers:
        chosen = choose_library(model)
        use_fast_layers(model, fast_kinds(library or (chosen.value if chosen else TORCH)))
    pack(model, random_batch([20, 10]))
    return model.train()


def random_batch(lengths: Sequence[int], labeled: float = 0.7) -> Batch:
    """Make a batch of rows of random tokens.

    Args:
        lengths: Tokens of each row.
        labeled: Fraction of each row, at its end, that has labels.
    """
    rows = []
    for length in lengths:
        ids = torch.randint(3, 40_000, (length,)).tolist()
        prompt = round(length * (1 - labeled))
        rows.append(Example(ids, [IGNORE] * prompt + ids[prompt:]))
    return collate(rows)
