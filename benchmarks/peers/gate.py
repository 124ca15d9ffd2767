"""The gate: contenders train one at a time, and each waits for permission before every step.

A contender sends a line of JSON before each of its steps and waits for the answer, ``go`` or
``stop``. Its next line carries the seconds since the answer: one whole cycle of forward, backward,
optimizer, logging and fetching, whatever its trainer does in it. Needs only the standard library.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

VARIABLE = "LIT_LORA_BENCHMARK_GATE"
"""Environment variable with the two ends of the pipes, as ``read,write``."""


class Gate:
    """A contender's side of the gate.

    Args:
        read: File descriptor of the answers.
        write: File descriptor of the requests.
    """

    def __init__(self, read: int, write: int) -> None:
        self._answers = os.fdopen(read, "r")
        self._requests = os.fdopen(write, "w", buffering=1)
        self._start: float | None = None

    @classmethod
    def from_environment(cls) -> "Gate":
        """Return the gate of the process that started this one."""
        read, write = os.environ[VARIABLE].split(",")
        return cls(int(read), int(write))

    def wait(self, **report: Any) -> bool:
        """Report the end of the last step and wait for permission for the next.

        Args:
            report: What to record about the last step.

        Returns:
            Whether to make another step.
        """
        seconds = None if self._start is None else time.perf_counter() - self._start
        report |= {"seconds": seconds, "memory": memory()}
        self._requests.write(json.dumps(report) + "\n")
        answer = self._answers.readline().strip()
        self._start = time.perf_counter()
        return answer == "go"

    def step(self, **report: Any) -> None:
        """Wait in the same way, and end this process if there is no further step."""
        if not self.wait(**report):
            # What a trainer writes at its end belongs to no step, and takes long.
            os._exit(0)


def memory() -> dict[str, float]:
    """Return the resident memory of this process now, and its peak, in MB."""
    fields = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            fields[name] = int(value.split()[0]) * 1024 / 1e6
    return {"now": fields["VmRSS"], "peak": fields["VmHWM"]}
