"""Measure which operations a step spends its time in.

    python -m benchmarks.step_profile [--lengths 130 120 98 80] [--passes 5]

Runs forward and backward passes of the embedded model, as lit.fit computes them, under torch's
profiler, and prints a Markdown table: the seconds of each kind of operation, without what it calls,
medians over the passes.
"""

import argparse
import statistics
from collections import defaultdict

from torch.profiler import ProfilerActivity, profile

from benchmarks.embedded_model import load_adapted, random_batch
from lit.model.loss import summed_loss
from lora.config import LoRAConfig

EXACT = {
    "matrix products": ("mm", "addmm", "addmm_", "bmm"),
    "dropout: random numbers and masks": ("random_", "ge", "mul_"),
    "copies": ("copy_", "cat", "fill_"),
    "norms, rotary embeddings, sums": (
        *("mul", "add", "add_", "pow", "mean", "rsqrt", "sum", "neg", "div"),
    ),
}
"""Operations by their whole name."""
CONTAINED = {
    "matrix products": ("_linear_pointwise",),
    "attention": ("scaled_dot_product",),
    "the adapter's own steps": ("LoRAFunction",),
    "the MLP's gate": ("silu", "GatedProduct"),
}
"""Operations by a part of their name."""


def kind_of(operation: str) -> str:
    """Return the kind of an operation of the profiler: a key of EXACT or CONTAINED, or others."""
    name = operation.removeprefix("aten::").removeprefix("mkldnn::")
    for kind, names in EXACT.items():
        if name in names:
            return kind
    for kind, parts in CONTAINED.items():
        if any(part in name for part in parts):
            return kind
    return "others"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[130, 120, 98, 80])
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args()
    model = load_adapted(LoRAConfig(r=8, lora_alpha=32, lora_dropout=0.1))
    batch = random_batch(options.lengths)
    summed_loss(model, batch).backward()
    passes: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.passes):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            summed_loss(model, batch).backward()
        seconds: dict[str, float] = defaultdict(float)
        for event in profiler.key_averages():
            seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
        for kind, value in seconds.items():
            passes[kind].append(value)
    medians = {kind: statistics.median(values) for kind, values in passes.items()}
    total = sum(medians.values())
    print(f"{sum(options.lengths)} tokens, {options.passes} passes, {total:.2f} s\n")
    print("| operations | seconds | share |\n|---|---|---|")
    for kind, value in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"| {kind} | {value:.3f} | {100 * value / total:.0f} % |")


if __name__ == "__main__":
    main()
