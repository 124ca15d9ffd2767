"""The standard streams of a command: nothing that is printed can end it."""

import codecs
import contextlib
import io
import os
import select
import sys
from typing import Any, TextIO

SUBSTITUTES = {
    "…": "...",
    "→": "->",
    "–": "-",
    "—": "-",
    "×": "x",
    "█": "#",
    "━": "-",
    "─": "-",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "•": "*",
    "│": "|",
    "\xa0": " ",
}
"""What a narrow encoding, such as ASCII, gets for characters that it lacks; others become ``?``."""
ERRORS = "lit-lora"


class OutputClosedError(Exception):
    """Nobody reads the output any more; 141 is the exit code of a program that SIGPIPE ends."""

    exit_code = 141

    def __init__(self) -> None:
        super().__init__("")


class _Descriptor(io.FileIO):
    """A descriptor to write to; after a write failed it accepts everything and writes nothing."""

    failure: OSError | ValueError | None = None
    """Why a write failed, if one did."""
    reported = False

    def write(self, data: Any) -> int:
        """Write bytes, and return how many were taken."""
        if not self.failure:
            try:
                while (written := super().write(data)) is None:
                    # Another program made the terminal or pipe nonblocking.
                    select.select([], [self.fileno()], [])
                return written
            except (OSError, ValueError) as error:
                self.failure = error
        return memoryview(data).nbytes


def prepare_streams() -> None:
    """Make stdin, stdout and stderr survive a closed pipe, a full disk and a narrow encoding.

    Closed descriptors are opened as os.devnull: otherwise the next file that is opened gets the
    number of stdout, and what is printed goes into that file.
    """
    codecs.register_error(ERRORS, _substitute)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    elif isinstance(sys.stdin, io.TextIOWrapper):
        # A caller that has read from it keeps its way of decoding.
        with contextlib.suppress(io.UnsupportedOperation):
            sys.stdin.reconfigure(errors="replace")
    sys.stdout = _forgiving(sys.stdout, 1, sys.stdout is sys.__stdout__)
    sys.stderr = _forgiving(sys.stderr, 2, sys.stderr is sys.__stderr__)


def check_stdout() -> None:
    """Check that somebody reads stdout, where a command does nothing but write to it.

    Raises:
        OutputClosedError: A write has failed.
    """
    if (raw := _stdout_descriptor()) and raw.failure:
        raise OutputClosedError


def lost_output() -> str:
    """Return why output was lost, if not because its reader ended; once, then it is empty."""
    raw = _stdout_descriptor()
    if (
        raw is None
        or raw.failure is None
        or raw.reported
        or isinstance(raw.failure, BrokenPipeError)
    ):
        return ""
    raw.reported = True
    return str(getattr(raw.failure, "strerror", None) or raw.failure)


def flush_streams() -> None:
    """Flush stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        # Another program's stream, as of a test, may be closed.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _stdout_descriptor() -> _Descriptor | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Descriptor) else None


def _forgiving(stream: TextIO | None, number: int, own: bool) -> TextIO:
    """Return a stream that does not raise, in place of the interpreter's own."""
    buffer = getattr(stream, "buffer", None)
    # With python -u there is no buffer.
    raw = getattr(buffer, "raw", buffer)
    if isinstance(raw, _Descriptor):
        return stream  # type: ignore[return-value]
    if stream is not None and not (own and isinstance(raw, io.FileIO)):
        # A test or a notebook collects the output. Or it is a Windows console, which shows UTF-8
        # only through the interpreter's own stream.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)
        return stream
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    terminal = os.isatty(number)
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(number, "wb", closefd=False)),
        encoding=stream.encoding if stream is not None else "utf-8",
        errors=ERRORS,
        # As the interpreter's own: stderr shows a line when it is complete, also in a file.
        line_buffering=terminal or number == 2,
    )


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Return what is written for characters that the encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(SUBSTITUTES.get(letter, "?") for letter in letters), error.end
