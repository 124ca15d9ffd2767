"""Where the time of a step goes: python -m benchmarks.step_profile [--lengths 130 120 98 80]

One forward and backward pass of the embedded model as lit.fit computes it, by torch's profiler:
the seconds that each kind of operation takes itself, medians of some passes, as a Markdown table.
"""

import argparse
from collections import defaultdict

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from data.batch import collate
from data.types import IGNORE, Batch, Example
from lit.model.attention import pack
from lit.model.base import load_base
from lit.model.fused_norm import fuse
from lit.model.gated_mlp import keep_less
from lit.model.loss import summed_loss
from lit.model.onednn_linear import hasten
from lora.config import LoRAConfig
from lora.inject import inject

MODEL = "models/SmolLM2-135M-Instruct"
LABELLED = 0.7
KINDS = {
    "products of matrices": ("mm", "addmm", "_linear_pointwise", "addmm_", "bmm"),
    "attention": ("scaled_dot_product",),
    "the dropout's random numbers and masks": ("random_", "ge", "mul_"),
    "the adapter's own steps": ("LoRAFunction",),
    "the MLP's gate": ("silu", "GatedProduct"),
    "copies": ("copy_", "cat", "fill_"),
    "norms, rotations, sums": ("mul", "add", "add_", "pow", "mean", "rsqrt", "sum", "neg", "div"),
}


def kind_of(operation: str) -> str:
    """Which of KINDS an operation of the profiler belongs to."""
    name = operation.removeprefix("aten::").removeprefix("mkldnn::")
    for kind, names in KINDS.items():
        long = [n for n in names if len(n) > 9 or n[0].isupper() or n == "silu"]
        if name in names or any(n in name for n in long):
            return kind
    return "all else"


def batch_of(lengths: list[int]) -> Batch:
    """Rows of random tokens, of which the last 70 % are learned."""
    rows = []
    for length in lengths:
        ids = torch.randint(3, 40_000, (length,)).tolist()
        prompt = round(length * (1 - LABELLED))
        rows.append(Example(ids, [IGNORE] * prompt + ids[prompt:]))
    return collate(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[130, 120, 98, 80])
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = load_base(MODEL)
    inject(model, LoRAConfig(r=8, lora_alpha=32, lora_dropout=0.1))
    keep_less(model)
    hasten(model)
    fuse(model)
    batch = batch_of(options.lengths)
    pack(model, batch)
    model.train()
    summed_loss(model, batch).backward()
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.passes):
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            summed_loss(model, batch).backward()
        seconds: dict[str, float] = defaultdict(float)
        for event in recorded.key_averages():
            seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
        for kind, value in seconds.items():
            found[kind].append(value)
    medians = {kind: float(np.median(values)) for kind, values in found.items()}
    whole = sum(medians.values())
    print(f"{sum(options.lengths)} tokens, {options.passes} passes, {whole:.2f} s\n")
    print("| operations | seconds | share |\n|---|---|---|")
    for kind, value in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {value:.3f} | {100 * value / whole:.0f} % |")


if __name__ == "__main__":
    main()
