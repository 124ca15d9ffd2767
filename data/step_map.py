"""A run's course: which micro-batches of which epoch each optimizer step is made of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple


class Leg(NamedTuple):
    """A stretch of optimizer steps of as many micro-batches each."""

    step: int
    """Optimizer steps of the run before it."""
    epoch: int
    """The epoch that it begins in."""
    done: int
    """Micro-batches of that epoch that were computed before."""
    per_step: int
    """Micro-batches of an optimizer step, over all ranks."""


class Span(NamedTuple):
    """The optimizer steps of one epoch within one leg."""

    epoch: int
    step: int
    """Optimizer steps of the run before it."""
    steps: int
    skipped: int
    """Micro-batches of the epoch that were computed before."""


@dataclass(frozen=True)
class Course:
    """The legs of a run; a new one begins where it goes on with steps of another size.

    Micro-batches do not depend on the number of ranks or on accumulation, only how many of them
    form a step does.

    Args:
        legs: In order; the last one is now.
        micro_batches: How many there are in an epoch.
    """

    legs: tuple[Leg, ...]
    micro_batches: Callable[[int], int]

    def resumed(self, step: int, per_step: int) -> "Course":
        """The course of a run that goes on after a step, with steps of some size."""
        legs = tuple(leg for leg in self.legs if leg.step <= step)
        if legs[-1].per_step == per_step:
            return replace(self, legs=legs)
        last = replace(self, legs=legs)
        span = last.at(step)
        done = span.skipped + (step - span.step) * legs[-1].per_step
        return replace(self, legs=(*legs, Leg(step, span.epoch, done, per_step)))

    def at(self, step: int) -> Span:
        """The span that an optimizer step, from 0, is in."""
        return next(span for span in self._spans() if step < span.step + span.steps)

    def of(self, epoch: int) -> Span:
        """The last span of an epoch: what is left of it, or all of it."""
        found = None
        for span in self._spans():
            if span.epoch > epoch and found:
                return found
            found = span if span.epoch == epoch else found
        raise AssertionError("epochs have no end")

    def steps(self, epochs: int) -> int:
        """Optimizer steps of so many epochs."""
        if not epochs:
            return 0
        last = self.of(epochs - 1)
        return last.step + last.steps

    def _spans(self) -> Iterator[Span]:
        ends = [leg.step for leg in self.legs[1:]]
        for leg, end in zip(self.legs, [*ends, None], strict=True):
            step, epoch, done = leg.step, leg.epoch, leg.done
            while end is None or step < end:
                steps = -(-(self.micro_batches(epoch) - done) // leg.per_step)
                steps = steps if end is None else min(steps, end - step)
                yield Span(epoch, step, steps, done)
                step, epoch, done = step + steps, epoch + 1, 0


def said_of(course: Course, step: int) -> list[str]:
    """A line on steps that have another size from some step on; none where they have not."""
    *others, now = course.legs
    if not others or now.step != step:
        return []
    sizes = f"{now.per_step} micro-batches, was of {others[-1].per_step}"
    return [f"a step is of {sizes}: from micro-batch {now.done} of epoch {now.epoch} on"]
