"""Feed the micro-batches of a plan to a DataLoader."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import Dataset, Sampler

from data.planning.batch import collate
from data.planning.plan import Plan
from data.seeds import mix_seed
from data.types import IGNORE, Batch

if TYPE_CHECKING:  # takes half a second to import
    from data.store import Store


class MicroBatches(Dataset):
    """The micro-batches of one rank in one epoch, indexed by micro-step."""

    def __init__(
        self, store: "Store", rows: np.ndarray, plan: Plan, rank: int, epoch: int = 0
    ) -> None:
        self.store, self.rows, self.plan, self.rank = store, rows, plan, rank
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.micro_steps

    def __getitem__(self, micro_step: int) -> Batch:
        rows = self.rows[self.plan.rows(self.rank, micro_step)]
        labels = self.plan.step_labels(micro_step)
        if len(rows):
            rng_key = mix_seed(self.epoch, self.plan.batch_id(self.rank, micro_step))
            return collate([self.store.example(row) for row in rows], labels, rng_key)
        # A rank without rows in the last step still computes, because the others wait for it:
        # it takes the shortest row, without labels.
        shortest = self.store.example(self.rows[self.store.lengths[self.rows].argmin()])
        return collate([shortest._replace(labels=[IGNORE] * len(shortest.ids))], labels)


class MicroStepSampler(Sampler):
    """Yields micro-steps from a start; its length is the whole epoch, as Lightning expects."""

    def __init__(self, start: int, total: int) -> None:
        self.start, self.total = start, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))

    def __len__(self) -> int:
        return self.total
