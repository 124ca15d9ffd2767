"""A contender: a process that trains with its own trainer and waits before each step."""

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
TIMEOUT = 600
"""Seconds that a step, or the time before the first, may take."""
LAST_LINES = 3


class ContenderError(RuntimeError):
    """A contender ended or hung; the message ends with the last lines of its output."""


class Contender:
    """Our side of a contender's gate.

    Args:
        command: What to run, in the repository's root.
        log: The file for its output.
        environment: Variables in addition to those of this process.
    """

    def __init__(
        self, command: list[str], log: Path, environment: dict[str, str] | None = None
    ) -> None:
        requests_read, requests_write = os.pipe()
        answers_read, answers_write = os.pipe()
        ends = (answers_read, requests_write)
        variables = os.environ | (environment or {}) | {VARIABLE: f"{ends[0]},{ends[1]}"}
        variables["CUDA_VISIBLE_DEVICES"] = ""  # everybody trains on the CPU
        self.log = log
        self.started = time.perf_counter()
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=variables,
                pass_fds=ends,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        for end in ends:
            os.close(end)
        self._requests = os.fdopen(requests_read, "r")
        self._answers = os.fdopen(answers_write, "w", buffering=1)

    def request(self) -> dict[str, Any]:
        """Wait until it asks for the next step, and return what it reports.

        Raises:
            ContenderError: It ended, or hangs.
        """
        ready, _, _ = select.select([self._requests], [], [], TIMEOUT)
        if not ready:
            raise ContenderError(f"no step within {TIMEOUT} s{self._last_lines()}")
        line = self._requests.readline()
        if not line:
            code = self.process.wait()
            raise ContenderError(f"ended with exit code {code}{self._last_lines()}")
        return json.loads(line)

    def step(self) -> dict[str, Any]:
        """Let it make a step, wait for the end, and return what it reports.

        Raises:
            ContenderError: It ended, or hangs.
        """
        try:
            self._answers.write("go\n")
        except BrokenPipeError:
            raise ContenderError(f"ended{self._last_lines()}") from None
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

    def _last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()[-LAST_LINES:]
        return f": {' / '.join(lines)}" if lines else ""
