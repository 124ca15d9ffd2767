"""What the contenders built on Hugging Face's Trainer share: the steps, and the gate."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import datasets
from transformers import TrainerCallback

from benchmarks.peers.flops import Flops
from benchmarks.peers.gate import Gate
from benchmarks.peers.rows import Step, digest

Item = Mapping[str, list[list[int]]]
Collator = Callable[[list[dict[str, list[int]]]], dict[str, Any]]


def as_dataset(steps: list[Step]) -> datasets.Dataset:
    """One item a step, whatever its number of rows."""
    return datasets.Dataset.from_dict(
        {"input_ids": [step.ids for step in steps], "labels": [step.labels for step in steps]}
    )


class WholeSteps:
    """Makes one padded batch of the rows of a step.

    Args:
        collate: The trainer's own way to make a batch of rows.
    """

    def __init__(self, collate: Collator) -> None:
        self.collate = collate
        self.digests: list[int] = []

    def __call__(self, items: list[Item]) -> dict[str, Any]:
        """Take the rows of the one item there is."""
        (item,) = items
        self.digests.append(digest([i for row in item["input_ids"] for i in row]))
        pairs = zip(item["input_ids"], item["labels"], strict=True)
        return self.collate([{"input_ids": list(x), "labels": list(y)} for x, y in pairs])


class Gated(TrainerCallback):
    """Asks before each optimizer step; counts the first one's arithmetic where it is to.

    Args:
        batches: Knows what was fetched; the trainer fetches ahead.
    """

    def __init__(self, batches: WholeSteps) -> None:
        self.gate = Gate.from_environment()
        self.batches = batches
        self.flops = Flops() if os.environ.get("LIT_LORA_BENCHMARK_FLOPS") else None
        self.report: dict[str, Any] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask; the loss of the step before is logged by now."""
        self.gate.step(**self.report)
        self.report = {"rows": self.batches.digests[state.global_step]}
        if state.global_step == 0 and self.flops:
            self.flops.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop counting."""
        if state.global_step == 1 and self.flops:
            self.report["flops"] = self.flops.end()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Note the losses."""
        for name, key in (("loss", "loss"), ("eval_loss", "val_loss")):
            if name in logs:
                self.report[key] = logs[name]

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask once more: the last step is over."""
        self.gate.step(**self.report)
