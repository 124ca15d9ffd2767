"""The trials of a search in its storage, and which process runs which.

A trial has a number. Whoever wants to run trial n adds an attempt at n to the storage; of several
attempts the first one counts, and the others are given up. A process that runs an attempt says so
again and again; where it falls silent, the trial may be attempted again. So no trial runs twice,
and none is lost, whatever process is killed at whatever moment.
"""

import json
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from lit.searching.records import RecordError, Trial
from lit.searching.trials.owner import Owner

PIECE = 20_000
"""Letters of a record in one field: MySQL holds 64 kB."""
BEAT = 15.0
"""Seconds between two signs of life."""

Kind = Literal["own", "try", "final"]


class LostTrialError(Exception):
    """Another process took the trial of this one, which was silent for too long."""


@dataclass(frozen=True)
class Job:
    """What a trial trains.

    Args:
        kind: The config's own settings, a try with a constant learning rate, or a final run.
        settings: What differs from the config.
        seed: The seed of the training; rows are split by the config's.
        epochs: Passes over the rows; None for as many as the config says.
    """

    kind: Kind
    settings: dict[str, Any]
    seed: int
    epochs: int | None = None


@dataclass(frozen=True)
class Slot:
    """The state of a trial.

    Args:
        number: The trial's number.
        job: What it trains.
        losses: Its validations so far.
        trial: Its record, if it has ended.
        running: Whether a process runs it now.
    """

    number: int
    job: Job
    losses: tuple[float, ...]
    trial: Trial | None
    running: bool


class Ledger:
    """The trials of one search.

    Args:
        storage: Where they are.
        name: The name of the search: equal for equal settings and rows.
        place: The folder of this process's results.
    """

    def __init__(self, storage: BaseStorage, name: str, place: str) -> None:
        self.storage, self.place = storage, f"{platform.node()}:{place}"
        try:
            self.study = storage.create_new_study([StudyDirection.MINIMIZE], name)
        except DuplicatedStudyError:
            self.study = storage.get_study_id_from_name(name)
        self.owner = Owner(self.place)
        self._attempt: int | None = None
        self._beat = 0.0

    def slots(self) -> list[Slot]:
        """Return the trials by number; attempts of processes that have ended are given up."""
        found: dict[int, list[FrozenTrial]] = {}
        for attempt in self._attempts():
            found.setdefault(attempt.user_attrs["slot"], []).append(attempt)
        return [self._slot(number, found[number]) for number in sorted(found)]

    def claim(self, number: int, job: Job) -> bool:
        """Attempt a trial; False if another process was first."""
        attrs = {
            "slot": number,
            "job": asdict(job),
            "owner": self.owner.identity,
            "beat": time.time(),
        }
        attrs["start"] = attrs["beat"]
        template = create_trial(state=TrialState.RUNNING, user_attrs=attrs)
        attempt = self.storage.create_new_trial(self.study, template)
        for other in self._attempts():
            if other._trial_id == attempt:
                break
            if other.user_attrs["slot"] == number and (_record(other) or self.owner.lives(other)):
                self._end(attempt, TrialState.FAIL)
                return False
        self._attempt, self._beat = attempt, time.monotonic()
        return True

    def beat(self) -> None:
        """Say that this process is at work on its trial.

        Raises:
            LostTrialError: Another process has taken it.
        """
        if self._attempt is not None and time.monotonic() - self._beat >= BEAT:
            self._beat = time.monotonic()
            self._write(lambda x: self.storage.set_trial_user_attr(x, "beat", time.time()))

    def report(self, step: int, loss: float) -> None:
        """Add a validation, from 1, to the trial of this process.

        Raises:
            LostTrialError: Another process has taken it.
        """
        self._write(lambda x: self.storage.set_trial_intermediate_value(x, step, loss))

    def finish(self, trial: Trial) -> None:
        """Store the record of this process's trial, and end it.

        Raises:
            LostTrialError: Another process has taken it.
        """
        text = json.dumps(trial.to_json())
        pieces = [text[i : i + PIECE] for i in range(0, len(text), PIECE)]

        def write(attempt: int) -> None:
            for i, piece in enumerate(pieces):
                self.storage.set_trial_user_attr(attempt, f"record {i}", piece)
            self.storage.set_trial_user_attr(attempt, "records", len(pieces))
            state = TrialState.COMPLETE if trial.state == "finished" else TrialState.PRUNED
            best = min((point.loss for point in trial.curve), default=None)
            values = [best] if state == TrialState.COMPLETE and best is not None else None
            self.storage.set_trial_state_values(attempt, state, values)

        self._write(write)
        self._attempt = None

    def release(self) -> None:
        """Give up the trial of this process, so that it is run again."""
        if self._attempt is not None:
            self._end(self._attempt, TrialState.FAIL)
            self._attempt = None

    def seconds(self) -> float:
        """Return how long processes with this place have worked on trials so far."""
        total = 0.0
        for attempt in self._attempts():
            attrs = attempt.user_attrs
            if attrs["owner"].get("place") == self.place:
                trial = _record(attempt)
                total += trial.seconds if trial else attrs["beat"] - attrs["start"]
        return total

    def _attempts(self) -> Iterable[FrozenTrial]:
        trials = self.storage.get_all_trials(self.study, deepcopy=False)
        ours = [trial for trial in trials if {"slot", "job", "owner"} <= trial.user_attrs.keys()]
        return sorted(ours, key=lambda trial: trial.number)

    def _slot(self, number: int, attempts: list[FrozenTrial]) -> Slot:
        job = Job(**attempts[0].user_attrs["job"])
        running: FrozenTrial | None = None
        for attempt in attempts:
            if trial := _record(attempt):
                if attempt.state == TrialState.RUNNING and not self.owner.lives(attempt):
                    self._end(attempt._trial_id, TrialState.PRUNED)
                return Slot(number, job, tuple(x.loss for x in trial.curve), trial, False)
            if attempt.state == TrialState.RUNNING:
                if self.owner.lives(attempt):
                    running = running or attempt
                else:
                    self._end(attempt._trial_id, TrialState.FAIL)
        values = running.intermediate_values if running else {}
        return Slot(number, job, tuple(values[i] for i in sorted(values)), None, bool(running))

    def _write(self, write: Callable[[int], None]) -> None:
        if self._attempt is None:
            return
        try:
            write(self._attempt)
        except UpdateFinishedTrialError:
            self._attempt = None
            raise LostTrialError from None

    def _end(self, attempt: int, state: TrialState) -> None:
        try:
            self.storage.set_trial_state_values(attempt, state)
        except UpdateFinishedTrialError:
            return  # another process was first


def _record(attempt: FrozenTrial) -> Trial | None:
    """Return the record of an attempt; None if it is not whole."""
    attrs = attempt.user_attrs
    if attempt.state == TrialState.FAIL or "records" not in attrs:
        return None
    try:
        text = "".join(attrs[f"record {i}"] for i in range(attrs["records"]))
        return Trial.from_json(json.loads(text))
    except (KeyError, ValueError, TypeError, RecordError):
        return None
