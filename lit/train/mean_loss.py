"""The mean loss of a labeled token over many batches and ranks."""

import lightning as L
import torch
from torch import Tensor

from lit.run.metrics_file import perplexity


class MeanLoss:
    """Keeps the losses on their device, and sums them in float64 on the CPU, once."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._labels = 0

    def add(self, loss: Tensor, labels: int) -> None:
        """Add the summed loss of some labels, a scalar, and how many they are."""
        self._losses.append(loss.detach().float())
        self._labels += labels

    def reduce(self, trainer: L.Trainer) -> float:
        """Return the mean over all ranks."""
        losses = torch.stack(self._losses) if self._losses else torch.zeros(1)
        sums = torch.tensor([float(losses.cpu().double().sum()), self._labels], dtype=torch.float64)
        if trainer.world_size > 1:
            # Not MPS, which has no float64: only CPUs and CUDA devices are several.
            strategy = trainer.strategy
            sums = strategy.reduce(sums.to(strategy.root_device), reduce_op="sum").cpu()
        return float(sums[0] / sums[1])


def loss_record(loss: float) -> dict[str, float]:
    """Return what a validation logs: the mean loss in nats, and its perplexity."""
    return {"val/loss": loss, "val/perplexity": perplexity(loss)}
