"""The records of a search: its trials, what they measured, and their plain JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from types import UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from lit.messages import tr

State = Literal["finished", "stopped early", "failed"]
Sums = tuple[float, ...]
"""The summed loss of each row, in nats."""


class RecordError(ValueError):
    """A record that is not whole, or has a number that is not finite."""


@dataclass(frozen=True)
class Point:
    """One validation of a trial.

    Args:
        step: Optimizer steps before it.
        epoch: Passes over the training rows before it.
        loss: Mean loss per label of the choosing rows, in nats.
    """

    step: int
    epoch: float
    loss: float


@dataclass(frozen=True)
class Trial:
    """One training with one choice of settings.

    Args:
        number: Its number in the search.
        settings: What was searched, by the dotted names of config.yaml, as plain JSON.
        seed: The seed of the training.
        state: How it ended.
        reason: Why it was stopped or failed; empty for a finished trial.
        curve: Its validations, in order.
        steps: Optimizer steps of the training that gives this adapter again.
        parameters: Trainable parameters.
        seconds: What the training took.
        full_schedule: Whether the learning rate followed the config's schedule to its end.
        choose: Loss of each choosing row at the trial's best validation; None if it has none.
        report: Loss of each reporting row with the same adapter; only finalists and the config's
            own settings have it.
    """

    number: int
    settings: dict[str, Any]
    seed: int
    state: State
    reason: str
    curve: tuple[Point, ...]
    steps: int
    parameters: int
    seconds: float
    full_schedule: bool
    choose: Sums | None = None
    report: Sums | None = None

    @property
    def key(self) -> str:
        """The settings as text: equal for trials that differ in seed or schedule alone."""
        return json.dumps(self.settings, sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """Return the trial as plain JSON.

        Raises:
            RecordError: A number is not finite, or a setting is not plain.
        """
        return _plain(asdict(self), "trial")

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the trial of ``to_json``.

        Raises:
            RecordError: A field is missing, unknown, of another type, or not finite.
        """
        return _read(value, cls, "trial")


@dataclass(frozen=True)
class Search:
    """All that a search measured.

    Args:
        trials: Every trial, in the order of their numbers.
        own: The number of the trial with the config's own settings; it always runs, first.
        choose_labels: Labels of each choosing row.
        report_labels: Labels of each reporting row.
        base_choose: Loss of each choosing row under the base model.
        base_report: Loss of each reporting row under the base model.
        rows: How many rows train, choose and report.
        budget_s: The time that was given, in seconds; None if trials were counted instead.
        used_s: The time that was used.
        notes: Sentences about how it was run.
    """

    trials: tuple[Trial, ...]
    own: int
    choose_labels: tuple[int, ...]
    report_labels: tuple[int, ...]
    base_choose: Sums
    base_report: Sums
    rows: tuple[int, int, int]
    budget_s: float | None
    used_s: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse trials whose rows are not the search's.

        Raises:
            RecordError: A trial has another number of rows, or two trials have one number.
        """
        numbers = [trial.number for trial in self.trials]
        if len(set(numbers)) != len(numbers):
            raise RecordError(tr("two trials of a search have the same number"))
        for part, labels in (("choose", self.choose_labels), ("report", self.report_labels)):
            measured = {"the base": getattr(self, f"base_{part}")}
            measured |= {f"trial {trial.number}": getattr(trial, part) for trial in self.trials}
            for name, sums in measured.items():
                if sums is not None and len(sums) != len(labels):
                    raise RecordError(
                        tr(
                            "{name} has {given} losses in `{part}`, the search has {rows} rows",
                            name=name,
                            given=len(sums),
                            part=part,
                            rows=len(labels),
                        )
                    )

    def trial(self, number: int) -> Trial | None:
        """Return a trial by its number, or None."""
        return next((trial for trial in self.trials if trial.number == number), None)

    def to_json(self) -> dict[str, Any]:
        """Return the search as plain JSON.

        Raises:
            RecordError: A number is not finite, or a setting is not plain.
        """
        return _plain(asdict(self), "search")

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the search of ``to_json``.

        Raises:
            RecordError: A field is missing, unknown, of another type, or not finite.
        """
        return _read(value, cls, "search")


def _read(value: Any, kind: Any, name: str) -> Any:
    """Return plain JSON as a value of an annotated type."""
    inner, form = get_args(kind), get_origin(kind)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        kinds = get_type_hints(kind)
        if set(value) != set(kinds):
            raise _not_readable(", ".join(sorted({str(key) for key in value} ^ set(kinds))))
        return kind(**{key: _read(value[key], kinds[key], key) for key in kinds})
    if form in (Union, UnionType):
        return None if value is None else _read(value, inner[0], name)
    if form is Literal and value in inner:
        return value
    if form is tuple and isinstance(value, list):
        each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
        if len(each) == len(value):
            return tuple(_read(x, of, name) for x, of in zip(value, each, strict=True))
    if form is dict and isinstance(value, Mapping):
        return _plain(value, name)
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise _not_readable(name)


def _not_readable(name: str) -> RecordError:
    return RecordError(tr("a record of a search has no readable `{name}`", name=name))


def _plain(value: Any, name: str) -> Any:
    """Return the value with tuples as lists, if JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, name) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(tr("`{name}` of a search's record is not finite", name=name))
    if value is not None and not isinstance(value, str | int | float | bool):
        raise _not_readable(name)
    return value
