"""A machine under test: its device, and the outcome of one check on it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from lit.device.device import Traits, traits
from lit.diagnosis.sample import Size
from lit.messages import tr_mark


@dataclass(frozen=True)
class Machine:
    """What a check computes on.

    Args:
        device: The device.
        folder: A folder for models and runs.
        timed: The size of the model whose steps are timed.
    """

    device: torch.device
    folder: Path
    timed: Size

    @property
    def traits(self) -> Traits:
        """What the device can do."""
        return traits(self.device)


class SkippedError(Exception):
    """A check does not apply to this machine; the message says why."""


class WrongError(Exception):
    """A check failed; the message says what was computed and what was expected."""


class Outcome(NamedTuple):
    """The result of one check: ``passed``, ``failed`` or ``skipped``."""

    name: str
    result: str
    text: str
    seconds: float


Check = Callable[[Machine], str]
"""Returns what it measured, in a line."""


def run_check(name: str, check: Check, machine: Machine) -> Outcome:
    """Run one check; an error of any kind fails this check alone."""
    start = time.perf_counter()
    try:
        result, text = tr_mark("passed"), check(machine)
    except SkippedError as error:
        result, text = tr_mark("skipped"), str(error)
    except Exception as error:  # whatever a machine does, the page must say it
        lines = str(error).strip().splitlines() or [""]
        kind = "" if isinstance(error, WrongError) else f"{type(error).__name__}: "
        result, text = tr_mark("failed"), f"{kind}{lines[0]}"
    return Outcome(name, result, text, time.perf_counter() - start)
