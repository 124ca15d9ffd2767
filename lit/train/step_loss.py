"""The loss of an optimizer step, summed over its micro-batches."""

import lightning as L
import torch
from torch import Tensor

from data.types import Batch
from lora.config import ConfigError


class StepLoss:
    """Sums the shares of the micro-batches of one optimizer step on this rank."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None

    def add(self, share: Tensor) -> None:
        """Add a micro-batch's share, a scalar; its gradient is dropped."""
        share = share.detach()
        self._sum = share if self._sum is None else self._sum + share

    def take(self) -> Tensor:
        """Return the sum, and start the next step at zero."""
        total, self._sum = self._sum, None
        return torch.zeros(()) if total is None else total


def labels_of_step(batch: Batch, trainer: L.Trainer) -> int:
    """Return the labeled tokens of the optimizer step that a micro-batch belongs to.

    Raises:
        ConfigError: The batch does not say, and it is not the whole step.
    """
    if batch.step_labels:
        return batch.step_labels
    if trainer.accumulate_grad_batches * trainer.world_size > 1:
        raise ConfigError(
            "a batch does not say how many labels its optimizer step has: pass `step_labels` to "
            "data.planning.batch.collate, or train without accumulation on one device"
        )
    return int((batch.labels >= 0).sum())
