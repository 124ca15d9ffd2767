"""The mean loss of labeled tokens over batches and ranks."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lit.train.mean_loss import MeanLoss


class OtherRank:
    """A strategy that adds the sums of one other rank."""

    def __init__(self, loss: float, labels: int) -> None:
        self.sums = torch.tensor([loss, labels], dtype=torch.float64)

    def reduce(self, tensor: Tensor, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        return tensor + self.sums


def test_every_labeled_token_of_every_batch_and_rank_has_the_same_weight() -> None:
    mean = MeanLoss()
    for loss, labels in ((6.0, 2), (0.0, 0), (4.0, 8)):
        mean.add(torch.tensor(loss), torch.tensor(labels))
    strategy: Any = OtherRank(20.0, 5)
    assert float(mean.reduce(strategy)) == pytest.approx((6 + 4 + 20) / (2 + 8 + 5))
