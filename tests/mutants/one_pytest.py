"""One run of pytest in a forked process, and the tests that fail in it."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

BROKEN_CODE = (NameError, ImportError, SyntaxError)
"""Errors of a line that does not run at all: every test of its file would find that."""
OWN_PACKAGES = ("tests", "lora", "data", "lit", "conftest")


class PytestResult(NamedTuple):
    """What one run of pytest found."""

    failed: tuple[str, ...] = ()
    """Node ids of the tests that failed, in their order."""
    invalid: str = ""
    """Why this run says nothing about a fault."""


class Failures:
    """A plugin of pytest that notes which tests fail."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.invalid = ""

    def pytest_collectreport(self, report: Any) -> None:
        """Note a file whose tests cannot be collected."""
        if report.failed and not self.invalid:
            self.invalid = f"{report.nodeid} cannot be collected"

    def pytest_runtest_makereport(self, item: Any, call: Any) -> None:
        """Note a test that fails, or whose fixtures fail."""
        if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception):
            return
        if call.excinfo.errisinstance(BROKEN_CODE):
            self.invalid = self.invalid or f"{item.nodeid}: {call.excinfo.exconly()}"[:200]
        if item.nodeid not in self.failed:
            self.failed.append(item.nodeid)


def run_pytest(root: Path, arguments: Sequence[str], limit: float) -> PytestResult:
    """Run pytest in a folder.

    The process is forked from this one, which has imported the libraries.

    Args:
        root: A copy of the project; its parent folder gets the output and temporary files.
        arguments: Tests, and flags.
        limit: Seconds after which it is killed.
    """
    answer, temporary = root.with_name("result.json"), root.with_name("tmp")
    answer.unlink(missing_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    flags = ["-q", "-p", "no:cacheprovider", "--basetemp", str(temporary)]
    if not (pid := os.fork()):
        _run_in_child(root, [*flags, *arguments], answer)
    deadline = time.monotonic() + limit
    try:
        while not os.waitpid(pid, os.WNOHANG)[0]:
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.02)
    except TimeoutError:
        _kill(pid)
        return PytestResult(invalid=f"not finished after {limit:.0f} s")
    except BaseException:
        # It does not get Ctrl-C, because it leads a process group of its own.
        _kill(pid)
        raise
    if not answer.is_file():
        return PytestResult(invalid=f"pytest ended early: {root.with_name('output')}")
    failed, invalid = json.loads(answer.read_text())
    return PytestResult(tuple(failed), invalid)


def _kill(pid: int) -> None:
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _run_in_child(root: Path, arguments: list[str], answer: Path) -> None:
    try:
        os.setsid()
        output = os.open(root.with_name("output"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(root)
        os.environ["PYTHONPATH"] = str(root)
        source = Path(__file__).parents[2]
        sys.path = [str(root), *(p for p in sys.path if Path(p).resolve() != source)]
        for name in [name for name in sys.modules if name.split(".")[0] in OWN_PACKAGES]:
            del sys.modules[name]
        failures = Failures()
        code = pytest.main(arguments, plugins=[failures])
        invalid = failures.invalid
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            invalid = invalid or f"pytest ended with {code!r}"
        answer.write_text(json.dumps([failures.failed, invalid]))
    finally:
        os._exit(0)
