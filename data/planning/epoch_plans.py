"""The plans of all epochs of a run, and the position of each optimizer step in them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from data.beginnings.beginnings import Beginnings
from data.messages import tr
from data.planning.micro_batches import micro_batches
from data.planning.plan import Plan, plan_epoch
from data.planning.step_map import Segment, StepMap
from data.types import DataError

if TYPE_CHECKING:  # takes half a second to import
    from data.store import Store


@dataclass
class EpochPlans:
    """The plan of each epoch of a run, which can be the rest of an interrupted one.

    Args:
        lengths: (rows,) tokens of each training row.
        label_counts: (rows,) labeled tokens of each training row.
        batch_size, max_tokens, group_by_length, seed: As in ``data.planning.plan.plan_epoch``.
        accumulate: Micro-batches of an optimizer step on each rank.
        world_size: The number of ranks.
        limit: The most micro-batches of an epoch, over all ranks; None for no limit.
        group_by_prefix, beginnings: As in ``plan_epoch``.
    """

    lengths: np.ndarray
    label_counts: np.ndarray
    batch_size: int
    max_tokens: int | None = None
    group_by_length: bool = False
    seed: int | None = None
    accumulate: int = 1
    world_size: int = 1
    limit: int | None = None
    group_by_prefix: bool = False
    beginnings: Beginnings | None = None
    _counts: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, store: "Store", rows: np.ndarray, share: bool, **settings: Any) -> "EpochPlans":
        """Return the plans of some rows of a store.

        Args:
            store: Holds the rows.
            rows: Its rows to plan.
            share: Whether rows may share beginnings.
            **settings: The other fields.

        Raises:
            DataError: Rows shall be grouped by what they may not share.
        """
        if settings.get("group_by_prefix") and not share:
            raise DataError(tr("`group_by_prefix` needs `share_prefixes`: set both to true"))
        shared = store.beginnings.of(rows)
        return cls(
            store.lengths[rows],
            store.label_counts[rows],
            beginnings=shared if share and shared.any else None,
            **settings,
        )

    @cached_property
    def step_map(self) -> StepMap:
        """Which micro-batches form each optimizer step."""
        return StepMap((Segment(0, 0, 0, self.accumulate * self.world_size),), self._count)

    def resume_from(self, segments: Iterable[Sequence[int]], step: int) -> None:
        """Continue the step map of another run after a step, with steps of this run's size.

        Args:
            segments: The segments of that run's step map; empty if they are unknown.
            step: Optimizer steps that run has done.
        """
        now = self.step_map
        before = tuple(Segment(*segment) for segment in segments) or now.segments
        self.step_map = replace(now, segments=before).resume(step, now.segments[-1].per_step)

    def share_nothing(self) -> None:
        """Let rows share no beginnings from here on, because the model cannot."""
        self.beginnings = None
        self._counts.clear()

    def epoch(self, epoch: int) -> Plan:
        """Return the plan of an epoch, or of the rest of it if the run resumed inside it."""
        return plan_epoch(
            self.lengths,
            self.label_counts,
            **self._order(epoch),
            accumulate=self.accumulate,
            world_size=self.world_size,
            skip=self.step_map.of_epoch(epoch).skipped,
            limit=self.limit,
        )

    def micro_step(self, epoch: int, step: int) -> int:
        """Return the micro-step of an epoch's plan that follows ``step`` optimizer steps."""
        planned, part = self.epoch(epoch), self.step_map.of_epoch(epoch)
        if step >= part.step + part.steps:
            return planned.micro_steps
        return max(step - part.step, 0) * planned.accumulate

    def step_rows(self, epoch: int, step: int) -> Iterator[int]:
        """Yield the training rows of the optimizer step after ``step`` steps, over all ranks."""
        planned, first = self.epoch(epoch), self.micro_step(epoch, step)
        for micro_step in range(first, min(first + planned.accumulate, planned.micro_steps)):
            for rank in range(planned.world_size):
                yield from planned.rows(rank, micro_step).tolist()

    def largest(self, epochs: int, rank: int | None = None) -> np.ndarray:
        """Return the training rows of the micro-batch with the most tokens.

        Args:
            epochs: Epochs to search; micro-batches differ from epoch to epoch.
            rank: Search the micro-batches of this rank; of every rank if None.
        """
        most, rows = -1, np.zeros(0, dtype=np.int64)
        for epoch in range(max(1, epochs)):
            planned = self.epoch(epoch)
            tokens = planned.tokens
            ids = np.arange(len(tokens))
            if rank is not None:
                ids = ids[rank :: self.world_size]
            best = int(ids[tokens[ids].argmax()])
            if tokens[best] > most:
                most = int(tokens[best])
                rows = planned.order[planned.starts[best] : planned.starts[best + 1]]
        return rows

    def _order(self, epoch: int) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "max_tokens": self.max_tokens,
            "group_by_length": self.group_by_length,
            "group_by_prefix": self.group_by_prefix,
            "beginnings": self.beginnings,
            "seed": self.seed,
            "epoch": epoch,
        }

    def _count(self, epoch: int) -> int:
        if epoch not in self._counts:
            _, starts = micro_batches(self.lengths, **self._order(epoch))
            count = len(starts) - 1
            self._counts[epoch] = count if self.limit is None else min(count, self.limit)
        return self._counts[epoch]
