"""Steps and gate for the contenders that are built on Hugging Face's Trainer."""

from collections.abc import Callable, Mapping
from typing import Any

import datasets
from transformers import TrainerCallback

from benchmarks.peers.rows import Step, digest
from benchmarks.peers.step_gate import StepGate

Item = Mapping[str, list[list[int]]]
Collator = Callable[[list[dict[str, list[int]]]], dict[str, Any]]


def as_dataset(steps: list[Step]) -> datasets.Dataset:
    """Return a data set with one item a step, whatever its number of rows."""
    return datasets.Dataset.from_dict(
        {"input_ids": [step.ids for step in steps], "labels": [step.labels for step in steps]}
    )


class StepCollator:
    """Makes one padded batch of the rows of a step.

    Args:
        collate: The trainer's own collator of rows.

    Attributes:
        digests: Of each step, in the order they were fetched.
    """

    def __init__(self, collate: Collator) -> None:
        self.collate = collate
        self.digests: list[int] = []

    def __call__(self, items: list[Item]) -> dict[str, Any]:
        """Collate the rows of the only item."""
        (item,) = items
        self.digests.append(digest([i for row in item["input_ids"] for i in row]))
        pairs = zip(item["input_ids"], item["labels"], strict=True)
        return self.collate([{"input_ids": list(x), "labels": list(y)} for x, y in pairs])


class Gated(TrainerCallback):
    """Waits at the gate before each optimizer step.

    Args:
        collator: Has the digests of the steps; the trainer fetches ahead.
    """

    def __init__(self, collator: StepCollator) -> None:
        self.gate = StepGate()
        self.collator = collator

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait; the loss of the step before is logged by now."""
        self.gate.begin_step(state.global_step, self.collator.digests[state.global_step])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop counting."""
        self.gate.end_step(state.global_step - 1)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        """Report the losses."""
        for name, key in (("loss", "loss"), ("eval_loss", "val_loss")):
            if name in logs:
                self.gate.report[key] = logs[name]

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait once more, which reports the last step."""
        self.gate.wait()
