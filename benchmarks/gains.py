"""What each of ours is worth in a step: python -m benchmarks.gains [--tokens 428 2000] [--rounds 5]

Forward and backward passes of the embedded model as lit.fit computes them, beside the same with one
of its ways left out; one pass of each in turn. Prints a Markdown table of seconds without over
seconds with: median (least … most).
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.peers.medians import ratio
from benchmarks.step_profile import MODEL, batch_of
from data.types import Batch
from lit.model.attention import pack
from lit.model.base import load_base
from lit.model.fused_norm import fuse
from lit.model.gated_mlp import keep_less
from lit.model.loss import summed_loss
from lit.model.onednn_linear import hasten
from lora.config import LoRAConfig
from lora.inject import inject

WAYS: dict[str, Callable[[nn.Module], int]] = {
    "frozen layers by oneDNN (lit/model/onednn_linear.py)": hasten,
    "norms in one step (lit/model/fused_norm.py)": fuse,
    "an MLP keeps gate and up only (lit/model/gated_mlp.py)": keep_less,
}
ROW = 500
"""Tokens of a row at most."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[428, 2000])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    models = {None: made(None)} | {way: made(way) for way in WAYS}
    print(f"| left out |{''.join(f' {tokens:,} tokens |' for tokens in options.tokens)}")
    print(f"|---|{'---|' * len(options.tokens)}")
    found = [measure(models, batch_of(split(tokens)), options.rounds) for tokens in options.tokens]
    for way in WAYS:
        cells = [ratio(seconds[way], seconds[None]) for seconds in found]
        print(f"| {way} |{''.join(f' {cell} |' for cell in cells)}")


def measure(
    models: dict[str | None, nn.Module], batch: Batch, rounds: int
) -> dict[str | None, list[float]]:
    """Seconds of every model's passes, in turn; those of the first round are left out."""
    seconds: dict[str | None, list[float]] = {way: [] for way in models}
    for number in range(rounds + 1):
        for way, model in models.items():
            start = time.perf_counter()
            summed_loss(model, batch).backward()  # type: ignore[arg-type]
            if number:
                seconds[way].append(time.perf_counter() - start)
    return seconds


def made(without: str | None) -> nn.Module:
    """The model with every way but one."""
    torch.manual_seed(0)
    model = load_base(MODEL)
    inject(model, LoRAConfig(r=8, lora_alpha=32, lora_dropout=0.1))
    for name, way in WAYS.items():
        if name != without and not way(model):
            raise SystemExit(f"{name} changes nothing on this machine")
    pack(model, batch_of([20, 10]))
    return model.train()


def split(tokens: int) -> list[int]:
    """Rows of about equal length."""
    rows = -(-tokens // ROW)
    return [tokens // rows] * rows


if __name__ == "__main__":
    main()
