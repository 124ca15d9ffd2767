"""The mean loss of a labeled token over many batches and ranks."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from lit.run.metrics_file import perplexity


class MeanLoss:
    """Sums losses and labels on the device; one float64 sum of each.

    Args:
        device: The device of the losses.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, labels: Tensor) -> None:
        """Add the summed loss of some labels, and how many they are; both are scalars."""
        self._sums += torch.stack([loss.double(), labels.double()])

    def reduce(self, strategy: Strategy) -> Tensor:
        """Return the mean over all ranks, a float64 scalar."""
        loss, labels = strategy.reduce(self._sums, reduce_op="sum")
        return loss / labels


def loss_record(loss: float) -> dict[str, float]:
    """Return what a validation logs: the mean loss in nats, and its perplexity."""
    return {"val/loss": loss, "val/perplexity": perplexity(loss)}
