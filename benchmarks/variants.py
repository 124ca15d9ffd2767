"""What each variant of LoRA costs beside PEFT's: python -m benchmarks.variants

One forward and backward pass of two layers of SmolLM2-135M's shapes, on the CPU, four rows of 590
tokens in all, r 8 on all seven projections, in turns; PEFT computes them padded to 784. Printed
are medians, the ratio of each pair of turns with its quartiles, and what autograd keeps for the
backward pass, scaled to the model's 30 layers. Needs the extra ``test`` (PEFT).
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

from data.batch import collate
from data.types import Example
from lit.model.attention import hidden_states, pack
from lora.config import PROJECTIONS, LoRAConfig
from lora.inject import inject

LENGTHS = (196, 150, 130, 114)
LAYERS = {"built": 2, "model": 30}
SHAPES = {
    "vocab_size": 320,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": LAYERS["built"],
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
}
SAME = {"r": 8, "lora_alpha": 32}
VARIANTS: dict[str, tuple[dict, dict]] = {
    "lora": ({}, {}),
    "rslora": ({"use_rslora": True}, {"use_rslora": True}),
    "dora": ({"variant": "dora"}, {"use_dora": True}),
    "pissa": ({"variant": "pissa"}, {"init_lora_weights": "pissa"}),
}
Step = Callable[[], Tensor]


def build() -> PreTrainedModel:
    """Two random layers, the same each time."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SHAPES))


def ours(settings: dict, dropout: float, rows: list[Example]) -> tuple[nn.Module, Step]:
    """The adapted model, and its forward pass over the flat batch."""
    model = build()
    inject(model, LoRAConfig(lora_dropout=dropout, **SAME, **settings))
    batch = collate(rows)
    pack(model, batch)
    model.train()
    return model, lambda: hidden_states(model, batch)


def theirs(settings: dict, dropout: float, rows: list[Example]) -> tuple[nn.Module, Step]:
    """PEFT's model, and its forward pass over the padded batch."""
    config = peft.LoraConfig(
        lora_dropout=dropout, target_modules=list(PROJECTIONS), **SAME, **settings
    )
    model = peft.get_peft_model(build(), config)
    model.train()
    ids = torch.zeros(len(rows), max(LENGTHS), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        mask[place, : len(row.ids)] = 1
    inner = model.base_model.model.model
    return model, lambda: inner(input_ids=ids, attention_mask=mask, use_cache=False)[0]


def kept(model: nn.Module, step: Step) -> float:
    """MB a token that autograd keeps, in 30 layers, without parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = step()
    size = sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
    del output
    return size / sum(LENGTHS) * LAYERS["model"] / LAYERS["built"] / 1e6


def clock(step: Step) -> float:
    """Milliseconds of a forward and backward pass."""
    start = time.perf_counter()
    step().sum().backward()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    torch.manual_seed(0)
    rows = [Example(ids, ids) for n in LENGTHS for ids in [torch.randint(3, 320, (n,)).tolist()]]
    print(
        f"{date.today()}, torch {torch.__version__}, peft {peft.__version__}, "
        f"{torch.get_num_threads()} threads, {turns} turns\n"
    )
    print("| variant | dropout | ours MB/token | PEFT MB/token | ours ms | PEFT ms | PEFT / ours |")
    print("|---|---|---|---|---|---|---|")
    for name, (own, other) in VARIANTS.items():
        for dropout in (0.0, 0.1):
            pairs = [ours(own, dropout, rows), theirs(other, dropout, rows)]
            memory = [kept(*pair) for pair in pairs]
            for _, step in pairs:
                clock(step)
            times = np.array([[clock(step) for _, step in pairs] for _ in range(turns)])
            middle = np.median(times, axis=0)
            low, ratio, high = np.quantile(times[:, 1] / times[:, 0], [0.25, 0.5, 0.75])
            print(
                f"| {name} | {dropout} | {memory[0]:.2f} | {memory[1]:.2f} | {middle[0]:.0f} | "
                f"{middle[1]:.0f} | {ratio:.2f} ({low:.2f} … {high:.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
