"""Compare training steps in float32 and in bf16-mixed on this CPU: their time and their losses.

    python -m benchmarks.precisions [--steps 20] [--batch 4]

Trains the embedded model on the quickstart's rows in both precisions, one step each in turns, from
the same adapter on the same micro-batches. Prints what the products alone gain, by which ``auto``
chooses, what whole steps gain, and how far the losses are apart.
"""

import argparse
import time

import torch
from transformers import PreTrainedModel

from benchmarks.embedded_model import load_adapted
from benchmarks.peers.medians import ratio
from benchmarks.shared_beginnings import batches
from data.types import Batch
from lit.device.precision import base_dtype, computing_in
from lit.fast_layers.library import bf16_gain, library_of
from lit.model.loss import summed_loss
from lora.config import LoRAConfig
from lora.families.linear import linear_layers
from lora.optimizer import make_optimizer

CONFIG = LoRAConfig(r=8, lora_alpha=16, lora_dropout=0.1)
RATE = 5e-4
"""The learning rate of the quickstart."""
PRECISIONS = ("32-true", "bf16-mixed")


class Training:
    """The embedded model in a precision, with its optimizer, and what its steps gave."""

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.model: PreTrainedModel = load_adapted(CONFIG, dtype=base_dtype(precision))
        self.optimizer = make_optimizer(self.model, "adamw", RATE, 0.0, 1.0)
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def step(self, batch: Batch, seed: int) -> None:
        """Do one optimizer step."""
        torch.manual_seed(seed)  # both draw the same dropout
        start = time.perf_counter()
        with computing_in(self.precision, torch.device("cpu")):
            loss = summed_loss(self.model, batch) / batch.label_count
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(loss.item())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, choices=[4, 8], default=4)
    options = parser.parse_args()
    single, half = (Training(precision) for precision in PRECISIONS)
    rows = [apart for _, apart in batches(f"quickstart, batch {options.batch}", options.steps)]
    for seed, batch in enumerate(rows):
        for training in (single, half)[:: 1 if seed % 2 else -1]:
            training.step(batch, seed)
    gain = bf16_gain(linear_layers(single.model).values())
    apart = [abs(y / x - 1) for x, y in zip(single.losses, half.losses, strict=True)]
    means = [sum(training.losses) / len(rows) for training in (single, half)]
    print(f"{len(rows)} steps; float32 by {library_of(single.model)}")
    print("float32 / bf16-mixed, products:", "not timed" if gain is None else f"{gain:.2f}")
    print("float32 / bf16-mixed, whole steps:", ratio(single.seconds[1:], half.seconds[1:]))
    print(f"mean loss: {means[0]:.4f} and {means[1]:.4f}, {abs(means[1] / means[0] - 1):.2%} apart")
    print(f"most of one step: {max(apart):.2%}; last step: {apart[-1]:.2%}")


if __name__ == "__main__":
    main()
