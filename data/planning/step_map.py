"""The step map of a run: which micro-batches of which epoch form each optimizer step."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from data.messages import tr


class Segment(NamedTuple):
    """Consecutive optimizer steps with the same number of micro-batches each."""

    step: int
    """Optimizer steps of the run before the segment."""
    epoch: int
    """The epoch in which the segment begins."""
    skipped: int
    """Micro-batches of that epoch that were computed before."""
    per_step: int
    """Micro-batches of an optimizer step, over all ranks."""


class EpochSteps(NamedTuple):
    """The optimizer steps of one epoch within one segment."""

    epoch: int
    step: int
    """Optimizer steps of the run before these."""
    steps: int
    skipped: int
    """Micro-batches of the epoch that were computed before."""


@dataclass(frozen=True)
class StepMap:
    """The segments of a run; a new one begins where the run resumes with steps of another size.

    The micro-batches of an epoch do not depend on the number of ranks or on accumulation; only
    the number of micro-batches in a step does.

    Args:
        segments: In order; the last one is the current one.
        micro_batches: Returns the number of micro-batches of an epoch.
    """

    segments: tuple[Segment, ...]
    micro_batches: Callable[[int], int]

    def resume(self, step: int, per_step: int) -> "StepMap":
        """Return the step map of a run that resumes after a step.

        Args:
            step: Optimizer steps done.
            per_step: Micro-batches of an optimizer step from here on, over all ranks.
        """
        segments = tuple(segment for segment in self.segments if segment.step <= step)
        before = replace(self, segments=segments)
        if segments[-1].per_step == per_step:
            return before
        part = before.at_step(step)
        skipped = part.skipped + (step - part.step) * segments[-1].per_step
        new = Segment(step, part.epoch, skipped, per_step)
        return replace(self, segments=(*segments, new))

    def at_step(self, step: int) -> EpochSteps:
        """Return the part of an epoch that contains an optimizer step, counted from 0."""
        return next(part for part in self._parts() if step < part.step + part.steps)

    def of_epoch(self, epoch: int) -> EpochSteps:
        """Return the last part of an epoch: what remains of it in the last segment."""
        last = None
        for part in self._parts():
            if part.epoch > epoch and last:
                return last
            last = part if part.epoch == epoch else last
        raise AssertionError("the parts of a step map never end")

    def total_steps(self, epochs: int) -> int:
        """Return the optimizer steps of the first epochs of the run."""
        if not epochs:
            return 0
        last = self.of_epoch(epochs - 1)
        return last.step + last.steps

    def _parts(self) -> Iterator[EpochSteps]:
        ends = [segment.step for segment in self.segments[1:]]
        for segment, end in zip(self.segments, [*ends, None], strict=True):
            step, epoch, skipped = segment.step, segment.epoch, segment.skipped
            while end is None or step < end:
                steps = -(-(self.micro_batches(epoch) - skipped) // segment.per_step)
                steps = steps if end is None else min(steps, end - step)
                yield EpochSteps(epoch, step, steps, skipped)
                step, epoch, skipped = step + steps, epoch + 1, 0


def describe_step_change(step_map: StepMap, step: int) -> list[str]:
    """Return a line on the new size of a step if it changes at this step, else no line."""
    *before, current = step_map.segments
    if not before or current.step != step:
        return []
    return [
        tr(
            "an optimizer step has {per_step} micro-batches, had {before}: from "
            "micro-batch {skipped} of epoch {epoch} on",
            per_step=current.per_step,
            before=before[-1].per_step,
            skipped=current.skipped,
            epoch=current.epoch,
        )
    ]
