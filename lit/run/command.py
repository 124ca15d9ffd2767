"""What every command shares: its streams, its signals, one line for an error, and its exit code."""

import argparse
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from data.text import clean
from lit.messages import tr
from lit.run.streams import flush_streams, lost_output, prepare_streams

ARGUMENT = re.compile(r"`(\w+)`")


class Terminated(BaseException):
    """SIGTERM came. It is raised in the main thread, so that temporary files are removed.

    Like KeyboardInterrupt it is no Exception: no handler of errors may swallow it.
    """

    exit_code = 128 + signal.SIGTERM

    def __init__(self) -> None:
        super().__init__("")


def run_command(
    body: Callable[[], int | None],
    names: Mapping[str, str],
    end: Callable[[int, str], int] | None = None,
) -> int:
    """Run a command and turn what it raises into an exit code.

    Exit codes: 0 done, or what ``body`` returns; 2 the request cannot be fulfilled; 1 failure;
    128 + n stopped by signal n.

    Args:
        body: The command.
        names: What the person types for each argument that a message names in backticks.
        end: Prints the message and returns the exit code; by default to stderr.

    Raises:
        BaseException: Anything unexpected, after ``end`` was called with code 1.
    """
    end = end or _print_and_return
    prepare_streams()
    try:
        with _raising_on_sigterm():
            code = body() or 0
        text = ""
    except BaseException as error:
        explained = explain(error, names)
        if explained is None:
            end(1, "")
            raise
        if sys.flags.dev_mode:
            traceback.print_exc()
        code, text = explained
    flush_streams()
    if reason := lost_output():
        print(
            tr("warning: stdout: {reason}; the rest of the output is lost", reason=reason),
            file=sys.stderr,
        )
    return end(code, text)


def add_template_kwargs(parser: argparse.ArgumentParser) -> None:
    """Give a parser the argument for values of a chat template's variables."""
    parser.add_argument(
        "--template_kwargs",
        type=_mapping,
        metavar="{NAME: VALUE}",
        help=tr(
            "values for variables of the template, such as '{enable_thinking: false}'; default: "
            "as the adapter was trained"
        ),
    )


def _mapping(text: str) -> dict[str, Any]:
    """Return the mapping that a person typed as YAML or JSON.

    Raises:
        ArgumentTypeError: It is none.
    """
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            tr("write it as {name: value}, such as {enable_thinking: false}")
        )
    return value


def flag_names(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the flag of each argument of a parser by its name in the code."""
    return {action.dest: f"--{action.dest}" for action in parser._actions}


def explain(error: BaseException, names: Mapping[str, str]) -> tuple[int, str] | None:
    """Return exit code and message of an error that a person can act on, or None for others."""
    if isinstance(error, KeyboardInterrupt):
        return 130, ""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return 1, f"{place}{error.strerror or _first_line(error)}"
    if isinstance(error, MemoryError):
        return 1, tr("out of memory")
    if (code := getattr(error, "exit_code", None)) is not None:
        return code, str(error)
    if not isinstance(error, ValueError):
        return None
    # Loading these takes seconds, and whoever raised one has done so.
    from data.types import DataError
    from lora.config import ConfigError
    from lora.storage.peft_format import AdapterError

    if isinstance(error, AdapterError):
        # It speaks of the settings in the adapter's folder, not of the person's.
        return 2, name_arguments(str(error), {})
    if isinstance(error, (ConfigError, DataError)):
        return 2, name_arguments(str(error), names)
    if isinstance(error, UnicodeEncodeError):
        return 2, tr(
            "{object!r} is not Unicode text: type it in the terminal's encoding",
            object=error.object[:80],
        )
    if "null byte" in str(error) or "null character" in str(error):
        return 2, tr("a path contains the character NUL, which no path can: remove it")
    return 1, tr(
        "{first_line} ({place}; python -X dev shows the traceback)",
        first_line=_first_line(error),
        place=_place(error),
    )


def name_arguments(text: str, names: Mapping[str, str]) -> str:
    """Replace each argument in backticks by what the person types for it."""
    return ARGUMENT.sub(lambda match: names.get(match[1], match[1]), text)


@contextmanager
def _raising_on_sigterm() -> Iterator[None]:
    """Raise Terminated on SIGTERM in a ``with`` block, in the process that entered it."""
    # Only the main thread may set handlers; a handler that was set before stays.
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            # A forked worker ends as if there were no handler.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Terminated

    signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        # The body may have set its own for the rest of the process.
        if signal.getsignal(signal.SIGTERM) is handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line), type(error).__name__)


def _place(error: BaseException) -> str:
    """Return the type of an error and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _print_and_return(code: int, text: str) -> int:
    if text:
        print(
            clean(tr("error: {error}", error=text) if code <= 2 else text),
            file=sys.stderr,
            flush=True,
        )
    return code
