"""What every command shares: one line for an error, and its exit code."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping

ARGUMENT = re.compile(r"`(\w+)`")


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
    try:
        code = body() or 0
    except BaseException as error:
        explained = explain(error, names)
        if explained is None:
            end(1, "")
            raise
        return end(*explained)
    return end(code, "")


def flag_names(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the flag of each argument of a parser by its name in the code."""
    return {action.dest: f"--{action.dest}" for action in parser._actions}


def explain(error: BaseException, names: Mapping[str, str]) -> tuple[int, str] | None:
    """Return exit code and message of an error that a person can act on, or None for others."""
    if isinstance(error, KeyboardInterrupt):
        return 130, ""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return 1, f"{place}{error.strerror or error}"
    # Loading these takes seconds, and whoever raised one has done so.
    from data.types import DataError
    from lora.config import ConfigError
    from lora.storage.peft_format import AdapterError

    if isinstance(error, AdapterError):
        # It speaks of the settings in the adapter's folder, not of the person's.
        return 2, name_arguments(str(error), {})
    if isinstance(error, (ConfigError, DataError)):
        return 2, name_arguments(str(error), names)
    code = getattr(error, "exit_code", None)
    return None if code is None else (code, str(error))


def name_arguments(text: str, names: Mapping[str, str]) -> str:
    """Replace each argument in backticks by what the person types for it."""
    return ARGUMENT.sub(lambda match: names.get(match[1], match[1]), text)


def _print_and_return(code: int, text: str) -> int:
    if text:
        print(f"error: {text}" if code <= 2 else text, file=sys.stderr, flush=True)
    return code
