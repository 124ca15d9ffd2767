"""Measure how much time each kind of fast layer saves in a step.

    python -m benchmarks.gains [--tokens 428 2000] [--rounds 5]

Times forward and backward passes of the embedded model as lit.fit computes them, and the same model
without one kind of fast layer. The models take turns, one pass each. Prints a Markdown table of the
seconds without that kind divided by the seconds with all: median (minimum … maximum).
"""

import argparse
import time

from transformers import PreTrainedModel

from benchmarks.embedded_model import load_adapted, random_batch
from benchmarks.peers.medians import ratio
from data.types import Batch
from lit.fast_layers.table import FAST_LAYERS, use_fast_layers
from lit.model.loss import summed_loss
from lora.config import LoRAConfig

ALL = "all"
MAX_ROW = 500
"""Tokens of a row at most."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[428, 2000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    models = {ALL: load_without(None)} | {kind: load_without(kind) for kind in FAST_LAYERS}
    seconds = [
        time_passes(models, random_batch(row_lengths(tokens)), options.rounds)
        for tokens in options.tokens
    ]
    print(f"| left out |{''.join(f' {tokens:,} tokens |' for tokens in options.tokens)}")
    print(f"|---|{'---|' * len(options.tokens)}")
    for left_out in FAST_LAYERS:
        cells = [ratio(times[left_out], times[ALL]) for times in seconds]
        print(f"| {left_out} |{''.join(f' {cell} |' for cell in cells)}")


def load_without(left_out: str | None) -> PreTrainedModel:
    """Load the model with all FAST_LAYERS but one.

    Raises:
        SystemExit: One of the others replaces nothing on this machine.
    """
    config = LoRAConfig(r=8, lora_alpha=32, lora_dropout=0.1)
    model = load_adapted(config, fast_layers=False)
    counts = use_fast_layers(model, [kind for kind in FAST_LAYERS if kind != left_out])
    for kind, count in counts.items():
        if not count:
            raise SystemExit(f"{kind}: replaces nothing on this machine")
    return model


def time_passes(
    models: dict[str, PreTrainedModel], batch: Batch, rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of each model's passes; the first round is a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, model in models.items():
            start = time.perf_counter()
            summed_loss(model, batch).backward()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def row_lengths(tokens: int) -> list[int]:
    """Split a number of tokens into rows of about equal length."""
    rows = -(-tokens // MAX_ROW)
    return [tokens // rows] * rows


if __name__ == "__main__":
    main()
