"""A run's step_map: which micro-batches of which epoch each optimizer step is made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple


class Segment(NamedTuple):
    """A stretch of optimizer steps of as many micro-batches each."""

    step: int
    """Optimizer steps of the run before it."""
    epoch: int
    """The epoch that it begins in."""
    done: int
    """Micro-batches of that epoch that were computed before."""
    per_step: int
    """Micro-batches of an optimizer step, over all ranks."""


class EpochSteps(NamedTuple):
    """The optimizer steps of one epoch within one segment."""

    epoch: int
    step: int
    """Optimizer steps of the run before it."""
    steps: int
    skipped: int
    """Micro-batches of the epoch that were computed before."""


@dataclass(frozen=True)
class StepMap:
    """The segments of a run; a new one begins where it goes on with steps of another size.

    Micro-batches do not depend on the number of ranks or on accumulation, only how many of them
    form a step does.

    Args:
        segments: In order; the last one is now.
        micro_batches: How many there are in an epoch.
    """

    segments: tuple[Segment, ...]
    micro_batches: Callable[[int], int]

    def resumed(self, step: int, per_step: int) -> "StepMap":
        """The step_map of a run that goes on after a step, with steps of some size."""
        segments = tuple(segment for segment in self.segments if segment.step <= step)
        if segments[-1].per_step == per_step:
            return replace(self, segments=segments)
        last = replace(self, segments=segments)
        epoch_steps = last.at(step)
        done = epoch_steps.skipped + (step - epoch_steps.step) * segments[-1].per_step
        return replace(self, segments=(*segments, Segment(step, epoch_steps.epoch, done, per_step)))

    def at(self, step: int) -> EpochSteps:
        """The epoch_steps that an optimizer step, from 0, is in."""
        return next(
            epoch_steps
            for epoch_steps in self._epochs()
            if step < epoch_steps.step + epoch_steps.steps
        )

    def of(self, epoch: int) -> EpochSteps:
        """The last epoch_steps of an epoch: what is left of it, or all of it."""
        found = None
        for epoch_steps in self._epochs():
            if epoch_steps.epoch > epoch and found:
                return found
            found = epoch_steps if epoch_steps.epoch == epoch else found
        raise AssertionError("epochs have no end")

    def steps(self, epochs: int) -> int:
        """Optimizer steps of so many epochs."""
        if not epochs:
            return 0
        last = self.of(epochs - 1)
        return last.step + last.steps

    def _epochs(self) -> Iterator[EpochSteps]:
        ends = [segment.step for segment in self.segments[1:]]
        for segment, end in zip(self.segments, [*ends, None], strict=True):
            step, epoch, done = segment.step, segment.epoch, segment.done
            while end is None or step < end:
                steps = -(-(self.micro_batches(epoch) - done) // segment.per_step)
                steps = steps if end is None else min(steps, end - step)
                yield EpochSteps(epoch, step, steps, done)
                step, epoch, done = step + steps, epoch + 1, 0


def describe_step_change(step_map: StepMap, step: int) -> list[str]:
    """A line on steps that have another size from some step on; none where they have not."""
    *others, now = step_map.segments
    if not others or now.step != step:
        return []
    sizes = f"{now.per_step} micro-batches, was of {others[-1].per_step}"
    return [f"a step is of {sizes}: from micro-batch {now.done} of epoch {now.epoch} on"]
