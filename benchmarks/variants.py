"""Measure what each LoRA variant costs in time and memory, next to PEFT's.

    python -m benchmarks.variants [--rounds 9]

A forward and backward pass of two layers of SmolLM2-135M's shapes on the CPU, four rows of 590
tokens in all, r 8 on all seven projections; PEFT gets the rows padded to 784 tokens. The two take
turns. Prints medians, the median and the quartiles of the ratio of each pair of turns, and what
autograd keeps for the backward pass, scaled to the model's 30 layers. Needs the extra ``test``
(PEFT).
"""

import argparse
import time
from collections.abc import Callable
from datetime import date

import numpy as np
import peft
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from data.planning.batch import collate
from data.types import IGNORE, Example
from lit.packing.hidden_states import hidden_states
from lit.packing.pack import pack
from lora.config import PROJECTIONS, LoRAConfig
from lora.injection import inject

LENGTHS = (196, 150, 130, 114)
LAYERS, LAYERS_OF_MODEL = 2, 30
SHAPES = {
    "vocab_size": 320,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
}
SHARED = {"r": 8, "lora_alpha": 32}
VARIANTS: dict[str, tuple[dict, dict]] = {
    "lora": ({}, {}),
    "rslora": ({"use_rslora": True}, {"use_rslora": True}),
    "dora": ({"variant": "dora"}, {"use_dora": True}),
    "pissa": ({"variant": "pissa"}, {"init_lora_weights": "pissa"}),
}
"""Our settings of each variant, and PEFT's."""
Forward = Callable[[], Tensor]


def build() -> PreTrainedModel:
    """Build two random layers, the same at each call."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPES))


def ours(settings: dict, dropout: float, rows: list[Example]) -> tuple[nn.Module, Forward]:
    """Return our adapted model, and its forward pass over the flat batch."""
    model = build()
    inject(model, LoRAConfig(lora_dropout=dropout, **SHARED, **settings))
    batch = collate(rows)
    pack(model, batch)
    model.train()
    return model, lambda: hidden_states(model, batch)


def with_peft(settings: dict, dropout: float, rows: list[Example]) -> tuple[nn.Module, Forward]:
    """Return PEFT's model, and its forward pass over the padded batch."""
    config = peft.LoraConfig(
        lora_dropout=dropout, target_modules=list(PROJECTIONS), **SHARED, **settings
    )
    model = peft.get_peft_model(build(), config)
    model.train()
    ids = torch.zeros(len(rows), max(LENGTHS), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row.ids)] = torch.tensor(row.ids)
        mask[index, : len(row.ids)] = 1
    inner = model.base_model.model.model
    return model, lambda: inner(input_ids=ids, attention_mask=mask, use_cache=False)[0]


def kept_megabytes(model: nn.Module, forward: Forward) -> float:
    """Return the megabytes a token that autograd keeps in 30 layers, without parameters."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    size = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del output
    return size / sum(LENGTHS) * LAYERS_OF_MODEL / LAYERS / 1e6


def milliseconds(forward: Forward) -> float:
    """Return the milliseconds of a forward and backward pass."""
    start = time.perf_counter()
    forward().sum().backward()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    texts = [torch.randint(3, 320, (n,)).tolist() for n in LENGTHS]
    rows = [Example(ids, [IGNORE, *ids[1:]]) for ids in texts]
    print(
        f"{date.today()}, torch {torch.__version__}, peft {peft.__version__}, "
        f"{torch.get_num_threads()} threads, {rounds} rounds\n"
    )
    print("| variant | dropout | ours MB/token | PEFT MB/token | ours ms | PEFT ms | PEFT / ours |")
    print("|---|---|---|---|---|---|---|")
    for name, (own, other) in VARIANTS.items():
        for dropout in (0.0, 0.1):
            pair = [ours(own, dropout, rows), with_peft(other, dropout, rows)]
            kept = [kept_megabytes(*model) for model in pair]
            for _, forward in pair:  # a warm-up
                milliseconds(forward)
            times = np.array([[milliseconds(step) for _, step in pair] for _ in range(rounds)])
            medians = np.median(times, axis=0)
            low, ratio, high = np.quantile(times[:, 1] / times[:, 0], [0.25, 0.5, 0.75])
            print(
                f"| {name} | {dropout} | {kept[0]:.2f} | {kept[1]:.2f} | {medians[0]:.0f} | "
                f"{medians[1]:.0f} | {ratio:.2f} ({low:.2f} … {high:.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
