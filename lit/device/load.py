"""What other programs do on this machine while something is timed."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

IDLE = ("idle", "iowait")
COUNTED_TWICE = ("guest", "guest_nice", "interrupt", "dpc")
"""Linux counts the first two as user time, too; Windows counts the others as system time, too."""


@contextmanager
def watching_others() -> Iterator[Callable[[], float]]:
    """Yield a function that returns how many cores other programs have kept busy since then.

    Where this machine is a virtual one, the time that others took from its host counts, too. The
    clock of a system is coarse: a tenth of a second tells little.
    """
    began, all_before, own_before = time.perf_counter(), _busy_seconds(), time.process_time()

    def busy_cores() -> float:
        spent = _busy_seconds() - all_before - (time.process_time() - own_before)
        return max(0.0, spent / max(time.perf_counter() - began, 1e-6))

    yield busy_cores


def free_cores(busy_cores: float) -> float:
    """Return how many cores are left to a program."""
    return (os.cpu_count() or 1) - busy_cores


def _busy_seconds() -> float:
    """Return the seconds that all cores together have computed since the machine started."""
    times = psutil.cpu_times()._asdict()
    return sum(spent for name, spent in times.items() if name not in (*IDLE, *COUNTED_TWICE))
