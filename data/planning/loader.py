"""Feed the micro-batches of a plan to a DataLoader."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from data.beginnings.beginnings import Beginnings
from data.planning.batch import Neighbors, collate
from data.planning.epoch_plans import EpochPlans
from data.seeds import mix_seed
from data.types import IGNORE, Batch

if TYPE_CHECKING:  # takes half a second to import
    from data.store import Store


class MicroBatches(Dataset):
    """The micro-batches of one rank in one epoch, indexed by micro-step.

    Args:
        store: Holds the rows.
        rows: The store's rows that are planned.
        plans: Of these rows.
        rank: The rank.
        epoch: The epoch.
    """

    def __init__(
        self, store: "Store", rows: np.ndarray, plans: EpochPlans, rank: int, epoch: int = 0
    ) -> None:
        self.store, self.rows, self.rank, self.epoch = store, rows, rank, epoch
        self.plan, self.beginnings = plans.epoch(epoch), plans.beginnings

    def __len__(self) -> int:
        return self.plan.micro_steps

    def __getitem__(self, micro_step: int) -> Batch:
        planned, labels = self.plan.rows(self.rank, micro_step), self.plan.step_labels(micro_step)
        if len(planned):
            rng_key = mix_seed(self.epoch, self.plan.batch_id(self.rank, micro_step))
            examples = [self.store.example(row) for row in self.rows[planned]]
            return collate(examples, labels, rng_key, neighbors_of(self.beginnings, planned))
        # A rank without rows in the last step still computes, because the others wait for it:
        # it takes the shortest row, without labels.
        shortest = self.store.example(self.rows[self.store.lengths[self.rows].argmin()])
        return collate([shortest._replace(labels=[IGNORE] * len(shortest.ids))], labels)


def neighbors_of(beginnings: Beginnings | None, rows: np.ndarray) -> Neighbors | None:
    """Return what ``collate`` takes for some rows."""
    if beginnings is None:
        return None
    order, common = beginnings.neighbors(rows)
    return order.tolist(), common.tolist()


class MicroStepSampler(Sampler):
    """Yields micro-steps from a start; its length is the whole epoch, as Lightning expects."""

    def __init__(self, start: int, total: int) -> None:
        self.start, self.total = start, total

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.total))

    def __len__(self) -> int:
        return self.total


def micro_batch_loader(
    batches: MicroBatches, start: int, num_workers: int, pin_memory: bool
) -> DataLoader:
    """Return the DataLoader of the micro-batches of a rank in an epoch.

    Args:
        batches: All of them.
        start: The micro-step to start with.
        num_workers: Processes that prepare batches.
        pin_memory: Whether batches come in page-locked memory.
    """
    return DataLoader(
        batches,
        batch_size=None,
        sampler=MicroStepSampler(start, len(batches)),
        num_workers=num_workers,
        pin_memory=pin_memory,
    )
