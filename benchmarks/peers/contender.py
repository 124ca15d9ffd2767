"""A contender: a process that trains as its own trainer does, and asks before each step."""

import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.gate import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600
"""Seconds that a step, or the way to the first, may take."""
LAST_LINES = 3


class ContenderError(RuntimeError):
    """A contender ended or hung; the message ends with its last lines."""


class Contender:
    """Our side of a contender's gate.

    Args:
        command: What to run, in the repository's root.
        log: Where its output goes.
        environment: Variables beside those of this process.
    """

    def __init__(
        self, command: list[str], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        read, theirs = os.pipe()
        their_read, write = os.pipe()
        variables = os.environ | (environment or {}) | {VARIABLE: f"{their_read},{theirs}"}
        variables["CUDA_VISIBLE_DEVICES"] = ""  # all of them on the CPU
        self.log = log
        self.started = time.perf_counter()
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=variables,
                pass_fds=(their_read, theirs),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        os.close(their_read)
        os.close(theirs)
        self._requests = os.fdopen(read, "r")
        self._answers = os.fdopen(write, "w", buffering=1)

    def request(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait until it asks for the next step.

        Raises:
            ContenderError: It ended, or asks for nothing.
        """
        ready, _, _ = select.select([self._requests], [], [], patience)
        if not ready:
            raise ContenderError(f"no step within {patience:.0f} s{self._said()}")
        line = self._requests.readline()
        if not line:
            code = self.process.wait()
            raise ContenderError(f"ended with exit code {code}{self._said()}")
        return json.loads(line)

    def go(self) -> None:
        """Let it make its next step."""
        try:
            self._answers.write("go\n")
        except BrokenPipeError:
            raise ContenderError(f"ended{self._said()}") from None

    def step(self) -> dict[str, Any]:
        """Let it make a step, and wait for its end."""
        self.go()
        return self.request()

    def stop(self) -> None:
        """End it."""
        try:
            self._answers.write("stop\n")
            self._answers.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._requests.close()

    def __enter__(self) -> "Contender":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _said(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
        return f": {' / '.join(lines)}" if lines else ""
