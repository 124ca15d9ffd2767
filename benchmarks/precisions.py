"""Compare training steps in float32, bf16-frozen and bf16-mixed on this CPU: times and losses.

    python -m benchmarks.precisions [--steps 20] [--batch 4]

Trains the embedded model on the quickstart's rows in each precision, one step each in turns, from
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
from lit.device.device import cpu_name
from lit.device.precision import BF16_FROZEN, base_dtype, computing_in
from lit.fast_layers.library import bf16_gain, library_for, library_of
from lit.model.loss import summed_loss
from lora.config import LoRAConfig
from lora.families.linear import linear_layers
from lora.optimizer import make_optimizer

CONFIG = LoRAConfig(r=8, lora_alpha=16, lora_dropout=0.1)
RATE = 5e-4
"""The learning rate of the quickstart."""
PRECISIONS = ("32-true", BF16_FROZEN, "bf16-mixed")


class Training:
    """The embedded model in a precision, with its optimizer, and what its steps gave."""

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.model: PreTrainedModel = load_adapted(
            CONFIG, dtype=base_dtype(precision), library=library_for(precision)
        )
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
    trainings = [Training(precision) for precision in PRECISIONS]
    rows = [apart for _, apart in batches(f"quickstart, batch {options.batch}", options.steps)]
    for seed, batch in enumerate(rows):
        # Which comes first changes from step to step.
        for training in (*trainings[seed % 3 :], *trainings[: seed % 3]):
            training.step(batch, seed)
    single = trainings[0]
    gain = bf16_gain(linear_layers(single.model).values())
    said = "not timed" if gain is None else f"{gain:.2f}"
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, {len(rows)} steps")
    print(f"float32 by {library_of(single.model)}; float32 / bfloat16, products: {said}\n")
    print(
        "| precision | float32 / this, s of a step | mean loss | mean loss, % apart "
        "| most of one step, % apart |\n|---|---|---|---|---|"
    )
    for one in trainings:
        apart = [abs(y / x - 1) for x, y in zip(single.losses, one.losses, strict=True)]
        mean = sum(one.losses) / len(rows)
        print(
            f"| {one.precision} | {ratio(single.seconds[1:], one.seconds[1:])} | {mean:.4f} "
            f"| {abs(mean * len(rows) / sum(single.losses) - 1):.2%} | {max(apart):.2%} |"
        )


if __name__ == "__main__":
    main()
