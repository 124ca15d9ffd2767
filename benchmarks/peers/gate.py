"""The gate: one process works at a time, each asks before a step and is told to go or to stop.

A contender sends a line of JSON before each of its steps and then waits. Its next request carries
the seconds that passed since it was let go: one whole cycle of forward, backward, optimizer,
logging and fetching, whatever the trainer does in it.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

VARIABLE = "LIT_LORA_BENCHMARK_GATE"
"""Names the two ends of the pipes, as ``read,write``."""


class Gate:
    """A contender's side.

    Args:
        read: File descriptor of the answers.
        write: File descriptor of the requests.
    """

    def __init__(self, read: int, write: int) -> None:
        self._answers = os.fdopen(read, "r")
        self._requests = os.fdopen(write, "w", buffering=1)
        self._since: float | None = None

    @classmethod
    def from_environment(cls) -> "Gate":
        """The gate of the process that started this one."""
        read, write = os.environ[VARIABLE].split(",")
        return cls(int(read), int(write))

    def wait(self, **report: Any) -> bool:
        """Say that the last step is over and wait for the next.

        Args:
            report: What is to be known of the step that is over.

        Returns:
            Whether to go on.
        """
        seconds = None if self._since is None else time.perf_counter() - self._since
        report |= {"seconds": seconds, "memory": memory()}
        self._requests.write(json.dumps(report) + "\n")
        answer = self._answers.readline().strip()
        self._since = time.perf_counter()
        return answer == "go"

    def step(self, **report: Any) -> None:
        """The same, but end this process where it is told to stop."""
        if not self.wait(**report):
            # What a trainer writes at its end is no part of a step, and takes long.
            os._exit(0)


def memory() -> dict[str, float]:
    """What the process holds now, and the most it ever held, in MB."""
    fields = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            fields[name] = int(value.split()[0]) * 1024 / 1e6
    return {"now": fields["VmRSS"], "peak": fields["VmHWM"]}
