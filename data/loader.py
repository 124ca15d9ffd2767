"""The turns of a plan, as a DataLoader takes them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset, Sampler

from data.batch import collate
from data.plan import Plan
from data.types import IGNORE, Batch

if TYPE_CHECKING:  # half a second to import
    from data.store import Store


class MicroBatches(Dataset):
    """The micro-batches of one rank in one epoch, by turn."""

    def __init__(
        self, store: "Store", rows: np.ndarray, plan: Plan, rank: int, epoch: int = 0
    ) -> None:
        self.store, self.rows, self.plan, self.rank = store, rows, plan, rank
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.turns

    def __getitem__(self, turn: int) -> Batch:
        rows = self.rows[self.plan.rows(self.rank, turn)]
        labels = self.plan.step_labels(turn)
        if len(rows):
            draw = hash((self.epoch, self.plan.place(self.rank, turn)))
            return collate([self.store.example(row) for row in rows], labels, draw)
        # A rank without a share in the last step still takes part in it, with nothing to learn.
        idle = self.store.example(self.rows[self.store.lengths[self.rows].argmin()])
        return collate([idle._replace(labels=[IGNORE] * len(idle.ids))], labels)


class Turns(Sampler):
    """The turns from a starting point; its length is the whole epoch's, as Lightning counts."""

    def __init__(self, start: int, total: int) -> None:
        self.start, self.total = start, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))

    def __len__(self) -> int:
        return self.total
