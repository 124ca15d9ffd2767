"""The losses of rows under the base model and under the tuned one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np
import torch
from transformers import PreTrainedModel

from data.planning.batch import collate
from data.planning.plan import plan_epoch
from data.types import IGNORE, Example
from lit.answering.generation import use_model
from lit.device.precision import computing_in
from lit.model.loss import token_losses
from lit.packing.pack import one_by_one, pack, restored_attention
from lit.run.console import print_rank0

MAX_TOKENS = 2048
MODELS = ("base", "tuned")
_told: WeakSet[PreTrainedModel] = WeakSet()
"""Models of which a person was told that their rows are computed one by one."""


@dataclass(frozen=True)
class Losses:
    """The summed loss of each row under both models, in nats, and its labeled tokens.

    Shapes:
        base, tuned, labels: (rows,)
    """

    base: np.ndarray
    tuned: np.ndarray
    labels: np.ndarray

    def mean(self, which: str) -> float:
        """Return the mean loss per labeled token under one model."""
        return float(getattr(self, which).sum() / self.labels.sum())

    def rows(self, which: str) -> np.ndarray:
        """Return the mean loss per labeled token of each row under one model, (rows,)."""
        return getattr(self, which) / self.labels

    def summed(self, counts: Sequence[int]) -> "Losses":
        """Return the sums of consecutive rows.

        Args:
            counts: How many rows form each sum, at least one.
        """
        starts = np.cumsum([0, *counts[:-1]])
        base, tuned, labels = (
            np.add.reduceat(values, starts) for values in (self.base, self.tuned, self.labels)
        )
        return Losses(base, tuned, labels)

    def not_finite(self, which: str) -> list[int]:
        """Return the numbers, from 1, of the rows whose loss under a model is not finite."""
        return [int(i) + 1 for i in np.flatnonzero(~np.isfinite(getattr(self, which)))]

    def interval(self, samples: int = 10_000, seed: int = 0) -> tuple[float, float]:
        """Return the 95% interval of tuned minus base, by a paired bootstrap over rows.

        Rows are drawn with replacement, each with both of its losses. So a row that is hard for
        both models does not widen the interval.
        """
        drawn = np.random.default_rng(seed).integers(
            len(self.labels), size=(samples, len(self.labels))
        )
        difference = (self.tuned - self.base)[drawn].sum(1) / self.labels[drawn].sum(1)
        low, high = np.quantile(difference, [0.025, 0.975])
        return float(low), float(high)


@torch.inference_mode()
def measure_losses(
    model: PreTrainedModel,
    examples: Sequence[Example],
    on_progress: Callable[[int], None],
    precision: str = "32-true",
) -> Losses:
    """Measure the loss of each row under both models.

    Args:
        model: With an adapter, in eval mode.
        examples: Rows with at least one label each.
        on_progress: Called after each batch with its number of rows, once for each model.
        precision: The precision of the training whose loss is to be reproduced.
    """
    lengths = np.array([len(example.ids) for example in examples])
    labels = np.array([sum(x != IGNORE for x in example.labels) for example in examples])
    batches = plan_epoch(
        lengths, labels, batch_size=len(examples), max_tokens=max(MAX_TOKENS, int(lengths.max()))
    )
    sums = {which: np.zeros(len(examples)) for which in MODELS}
    with restored_attention(model), computing_in(precision, model.device):
        if (reason := pack(model)) and model not in _told:
            _told.add(model)  # a comparison measures twice
            print_rank0(f"losses  {one_by_one(reason)}", note=True)
        for micro_step in range(batches.micro_steps):
            rows = batches.rows(0, micro_step)
            batch = collate([examples[row] for row in rows]).to(model.device)
            for which in MODELS:
                with use_model(model, which):
                    tokens = token_losses(model, batch)
                parts = tokens.cpu().double().split(labels[rows].tolist())
                sums[which][rows] = [float(part.sum()) for part in parts]
                on_progress(len(rows))
    return Losses(sums["base"], sums["tuned"], labels)
