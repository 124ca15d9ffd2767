"""The losses of rows under the base model and under the tuned one."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.beginnings.beginnings import Beginnings
from data.beginnings.find import find_beginnings
from data.planning.batch import collate
from data.planning.loader import neighbors_of
from data.planning.plan import plan_epoch
from data.types import IGNORE, Batch, Example
from lit.answering.generation import use_model
from lit.device.precision import computing_in
from lit.measures.intervals import Interval, paired_interval
from lit.messages import tr
from lit.model.loss import token_losses
from lit.packing.hidden_states import shares
from lit.packing.pack import one_by_one, pack, restored_attention, share
from lit.run.console import print_rank0

MAX_TOKENS = 2048
MODELS = ("base", "tuned")
_told: WeakSet[PreTrainedModel] = WeakSet()
"""Models of which a person was told that their rows are computed one by one, or share nothing."""


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

    @property
    def means(self) -> np.ndarray:
        """The mean loss per labeled token of each row under both models, (rows, models)."""
        return np.stack([self.rows(which) for which in MODELS], 1)

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

    def interval(self) -> Interval | None:
        """Return the 95% interval of tuned minus base per token; None for too few rows.

        It is paired: a row that is hard for both models does not widen it.
        """
        return paired_interval(self.tuned - self.base, self.labels)


MeasureLosses = Callable[[Sequence[Example], Callable[[int], None]], Losses]
"""Measures the loss of each row under both models.

Its arguments are rows with at least one label each, and what is called after each batch with its
number of rows, once for each model.
"""


@contextmanager
def measuring_losses(model: PreTrainedModel, precision: str = "32-true") -> Iterator[MeasureLosses]:
    """Yield a function that measures losses; a model is packed and checked once for all its calls.

    Args:
        model: With an adapter, in eval mode; its attention is its own again at the end.
        precision: The precision of the training whose loss is to be reproduced.
    """
    with restored_attention(model), computing_in(precision, model.device):
        with torch.inference_mode():
            reason = one_by_one(unpacked) if (unpacked := pack(model)) else None
            apart = None if unpacked else share(model)
        _tell(model, reason)

        @torch.inference_mode()
        def measure(examples: Sequence[Example], on_progress: Callable[[int], None]) -> Losses:
            labels = label_counts(examples)
            sums = {which: np.zeros(len(examples)) for which in MODELS}
            beginnings = find_beginnings(examples)
            if beginnings.any and apart:
                _tell(model, tr("{reason}: rows share no beginnings", reason=apart))
            shared = beginnings if beginnings.any and shares(model) else None
            for rows, batch in _batches(examples, labels, shared):
                batch = batch.to(model.device)
                for which in MODELS:
                    with use_model(model, which):
                        tokens = token_losses(model, batch)
                    sums[which][rows] = _sums(tokens, labels[rows])
                    on_progress(len(rows))
            return Losses(sums["base"], sums["tuned"], labels)

        yield measure


def _tell(model: PreTrainedModel, reason: str | None) -> None:
    """Tell a person once of each model why its rows take longer."""
    if reason and model not in _told:
        _told.add(model)
        print_rank0(tr("losses  {one_by_one}", one_by_one=reason), note=True)


def mean_losses(
    losses_of: Callable[[Batch], Tensor],
    examples: Sequence[Example],
    device: torch.device,
    share: bool = False,
) -> np.ndarray:
    """Return the mean loss per labeled token of each row under a model in training, (rows,).

    Args:
        losses_of: Returns the loss of each labeled token of a batch, (labels,).
        examples: Rows with at least one label each.
        device: The model's.
        share: Whether the model computes shared beginnings once.
    """
    return summed_losses(losses_of, examples, device, share) / label_counts(examples)


def summed_losses(
    losses_of: Callable[[Batch], Tensor],
    examples: Sequence[Example],
    device: torch.device,
    share: bool = False,
) -> np.ndarray:
    """Return the summed loss of each row, (rows,); arguments as above."""
    labels = label_counts(examples)
    sums = np.zeros(len(examples))
    for rows, batch in _batches(examples, labels, find_beginnings(examples) if share else None):
        sums[rows] = _sums(losses_of(batch.to(device)), labels[rows])
    return sums


def label_counts(examples: Sequence[Example]) -> np.ndarray:
    """Return the labeled tokens of each row, (rows,)."""
    return np.array([sum(x != IGNORE for x in example.labels) for example in examples])


def _batches(
    examples: Sequence[Example], labels: np.ndarray, beginnings: Beginnings | None
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield the rows of each batch, and the batch; rows that begin alike are together."""
    if not len(examples):
        return
    lengths = np.array([len(example.ids) for example in examples])
    most = max(MAX_TOKENS, int(lengths.max()))
    planned = plan_epoch(
        lengths,
        labels,
        batch_size=len(examples),
        max_tokens=most,
        group_by_prefix=beginnings is not None,
        beginnings=beginnings,
    )
    for micro_step in range(planned.micro_steps):
        rows = planned.rows(0, micro_step)
        shared = neighbors_of(beginnings, rows)
        yield rows, collate([examples[row] for row in rows], neighbors=shared)


def _sums(tokens: Tensor, labels: np.ndarray) -> np.ndarray:
    """Return the summed loss of each row of a batch from the losses of its labeled tokens."""
    return np.array([float(part.sum()) for part in tokens.cpu().double().split(labels.tolist())])
