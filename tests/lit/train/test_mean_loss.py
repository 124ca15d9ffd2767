"""The mean loss of labeled tokens over batches and ranks."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lit.train.mean_loss import MeanLoss


class OtherRank:
    """A strategy that adds the sums of one other rank."""

    root_device = torch.device("cpu")

    def __init__(self, loss: float, labels: int) -> None:
        self.sums = torch.tensor([loss, labels], dtype=torch.float64)

    def reduce(self, tensor: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        return tensor + self.sums


def test_every_labeled_token_of_every_batch_and_rank_has_the_same_weight() -> None:
    mean = MeanLoss()
    for loss, labels in ((6.0, 2), (0.0, 0), (4.0, 8)):
        mean.add(torch.tensor(loss), labels)
    alone: Any = SimpleNamespace(world_size=1)
    assert mean.reduce(alone) == 10 / 10
    two: Any = SimpleNamespace(world_size=2, strategy=OtherRank(20.0, 5))
    assert mean.reduce(two) == (6 + 4 + 20) / (2 + 8 + 5)


def test_many_small_losses_are_summed_without_rounding() -> None:
    mean, alone = MeanLoss(), SimpleNamespace(world_size=1)
    for loss in (2.0**24, *[1.0] * 100):
        mean.add(torch.tensor(loss), 1)
    assert mean.reduce(alone) == (2**24 + 100) / 101  # type: ignore[arg-type]
