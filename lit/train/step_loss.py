"""The loss of an optimizer step, summed over its micro-batches."""

import lightning as L
import torch
from torch import Tensor

from data.types import Batch
from lit.messages import tr
from lit.train.step_guard import TrainingError
from lora.config import ConfigError


class StepLoss:
    """Sums the shares of the micro-batches of one optimizer step on this rank."""

    def __init__(self) -> None:
        self._loss: Tensor | None = None
        self._labels = 0
        self.planned = 0
        """Labeled tokens of the step, over all ranks, as its last micro-batch says."""

    def add(self, share: Tensor, batch: Batch, planned: int) -> None:
        """Add a micro-batch.

        Args:
            share: Its share of the step's loss, a scalar; its gradient is dropped.
            batch: The micro-batch.
            planned: Labeled tokens of the whole step, over all ranks.
        """
        share = share.detach().float()
        self._loss = share if self._loss is None else self._loss + share
        self._labels += batch.label_count
        self.planned = planned

    def take(self) -> Tensor:
        """Return the sums of shares and of labels, (2,), and start the next step at zero."""
        loss, labels = self._loss, self._labels
        self._loss, self._labels = None, 0
        if loss is None:
            return torch.zeros(2)
        # ``new_full`` fills on the device; a tensor made of a number would be copied there.
        return torch.stack([loss, loss.new_full((), labels)])

    def check(self, labels: float, step: int) -> None:
        """Check the labels of a step, over all ranks; float32 is exact up to 16 million.

        Args:
            labels: What ``take`` returned, summed over all ranks.
            step: The number of the optimizer step, from 1.

        Raises:
            TrainingError: The micro-batches had other labels than those the loss was divided by.
        """
        if not abs(labels - self.planned) <= 1e-6 * self.planned:
            raise TrainingError(
                tr(
                    "step {step}: its micro-batches have {labels:.0f} labels, but its loss was "
                    "divided by {planned}. The adapter was not updated. Something changed which "
                    "micro-batches form a step: remove your own callbacks from "
                    "trainer.callbacks, and use trainer.accumulate_grad_batches",
                    step=step,
                    labels=labels,
                    planned=self.planned,
                )
            )


def labels_of_step(batch: Batch, trainer: L.Trainer) -> int:
    """Return the labeled tokens of the optimizer step that a micro-batch belongs to.

    Raises:
        ConfigError: The batch does not say, and it is not the whole step.
    """
    if batch.step_labels:
        return batch.step_labels
    if trainer.accumulate_grad_batches * trainer.world_size > 1:
        raise ConfigError(
            tr(
                "a batch does not say how many labels its optimizer step has: pass "
                "`step_labels` to data.planning.batch.collate, or train without accumulation on "
                "one device"
            )
        )
    return batch.label_count
