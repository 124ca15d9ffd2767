"""The losses of rows under the base model and under the tuned one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from data.planning.batch import collate
from data.planning.plan import plan_epoch
from data.types import IGNORE, Example
from lit.answering.generation import use_model
from lit.device.precision import computing_in
from lit.measures.intervals import Interval, paired_interval
from lit.model.attention import pack, restored_attention
from lit.model.loss import token_losses

MAX_TOKENS = 2048
MODELS = ("base", "tuned")


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

    def not_finite(self, which: str) -> list[int]:
        """Return the numbers, from 1, of the rows whose loss under a model is not finite."""
        return [int(i) + 1 for i in np.flatnonzero(~np.isfinite(getattr(self, which)))]

    def interval(self) -> Interval | None:
        """Return the 95% interval of tuned minus base per token; None for too few rows.

        It is paired: a row that is hard for both models does not widen it.
        """
        return paired_interval(self.tuned - self.base, self.labels)


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
        pack(model, collate(examples[:3]).to(model.device))
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
