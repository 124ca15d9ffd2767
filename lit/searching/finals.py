"""Which settings are trained with the whole schedule after the tries, and which of them twice."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lit.searching.records import Trial
from lit.searching.trials.halving import RUNGS, stops
from lit.searching.trials.ledger import Job, Slot

EPOCHS = "trainer.max_epochs"


@dataclass(frozen=True)
class Shares:
    """How a search divides its time.

    Args:
        finals: How many settings are trained again with the whole schedule.
        seeds: How often each of them, and the config's own settings, are trained.
    """

    finals: int
    seeds: int

    @property
    def runs(self) -> int:
        """Whole runs that come after the tries."""
        second = self.finals + 1 if self.seeds > 1 else 0
        return self.finals + second


class Finals:
    """Orders the whole runs that follow the tries.

    Args:
        own: The trial with the config's own settings.
        rank: Returns the tries that deserve a whole run, at most so many, the best first.
        lost: Returns the settings that are worse than the best of whole runs, by more than chance
            of rows and of seeds.
    """

    def __init__(
        self,
        own: Job,
        rank: Callable[[list[Trial], int], list[Trial]],
        lost: Callable[[list[Trial]], list[dict[str, Any]]],
    ) -> None:
        self.own, self.rank, self.lost = own, rank, lost

    def jobs(self, slots: Sequence[Slot], shares: Shares) -> Iterator[Job]:
        """Yield the whole runs, the first first; some may be trained already."""
        candidates = self._ranked([slot for slot in slots if slot.job.kind == "try"], shares)
        jobs = [Job("final", self._settings(slot), self.own.seed) for slot in candidates]
        finals = jobs[: shares.finals]
        yield from finals
        if shares.seeds < 2 or not finals:
            return
        # First of all, as it tells how much a seed changes, which those that lost must lose by.
        yield replace(self.own, kind="final", seed=self.own.seed + 1)
        lost = self.lost([slot.trial for slot in slots if slot.trial and slot.trial.full_schedule])
        begun = [slot.job for slot in slots]
        second = [replace(job, seed=job.seed + 1) for job in finals]
        second = [job for job in second if job in begun or job.settings not in lost]
        yield from second
        # The time of those that lost is for the next ones.
        spare = shares.runs - len(finals) - len(second) - 1
        yield from jobs[shares.finals :][:spare]

    def _ranked(self, tries: Sequence[Slot], shares: Shares) -> list[Slot]:
        """Return the tries that may have a whole run, the best first."""
        known = [slot for slot in tries if slot.losses and slot.trial and slot.trial.choose]
        numbers = [x.number for x in self.rank([x.trial for x in known if x.trial], shares.runs)]
        ranked = sorted(
            (slot for slot in known if slot.number in numbers),
            key=lambda slot: numbers.index(slot.number),
        )
        # Those that were stopped early come next: the later, the better.
        rest = sorted(
            (slot for slot in known if slot.number not in numbers),
            key=lambda slot: (-len(slot.losses), min(slot.losses)),
        )
        for slot in rest:
            place = len(ranked)
            # One whose time had ended is where it would be if all had ended then.
            if len(slot.losses) >= RUNGS[0] and not self._is_behind(slot, tries):
                upto = len(slot.losses)
                later = (n for n, x in enumerate(ranked) if min(x.losses[:upto]) > min(slot.losses))
                place = next(later, place)
            ranked.insert(place, slot)
        return ranked

    @staticmethod
    def _is_behind(slot: Slot, tries: Sequence[Slot]) -> bool:
        """Return whether other tries are better than one at its last validation."""
        return stops([x.losses for x in tries if x.number != slot.number], slot.losses)

    def _settings(self, slot: Slot) -> dict[str, Any]:
        """Return the settings of a try, with the epochs that its validations were best after."""
        settings = dict(slot.job.settings)
        if EPOCHS in self.own.settings:
            settings[EPOCHS] = self.own.settings[EPOCHS]
            if slot.trial and slot.trial.state == "finished":
                best = min(slot.trial.curve, key=lambda point: point.loss)
                settings[EPOCHS] = min(settings[EPOCHS], max(1, math.ceil(best.epoch - 1e-9)))
        return settings
