"""Open a file as text: gzip, byte order marks, and an error instead of a guessed encoding."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

from data.messages import tr, tr_mark
from data.readers.compressed import BLOCK, open_bytes
from data.readers.encoding import AUTO, choose_encoding, find_encoding
from data.readers.wrong_encoding import wrong_encoding
from data.types import DataError

MAX_ROW = 1 << 24
"""Characters of one row, about four million tokens; a longer one is bad and is never held whole."""
TOO_LONG = tr_mark("longer than {limit:,} characters")


@contextmanager
def open_text(
    path: Path, encoding: str | None = None, newline: str | None = None
) -> Iterator[TextIO]:
    """Open a file as text; errors while reading become one line that says what to do.

    Args:
        path: The file; one that gzip compressed is decompressed while it is read.
        encoding: None for the encoding of the byte order mark, or UTF-8 without one; ``auto`` for
            the one that ``find_encoding`` is certain of.
        newline: As in ``open``.

    Raises:
        DataError: The file cannot be read, or is not in that encoding.
    """
    if encoding == AUTO:
        encoding = find_encoding(path).encoding
    try:
        with open_bytes(path) as file:
            chosen = choose_encoding(path, file.peek(BLOCK)[:BLOCK], encoding)
            yield TextIOWrapper(file, encoding=chosen, newline=newline)
    except UnicodeDecodeError:
        raise wrong_encoding(path, chosen) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            tr("{path}: not a complete gzip file: {error}", path=path, error=error)
        ) from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def bounded_lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file; one longer than ``MAX_ROW`` is cut there, and has no newline."""
    while line := file.readline(MAX_ROW + 1):
        rest = line
        while len(rest) > MAX_ROW and not rest.endswith("\n"):
            rest = file.readline(MAX_ROW + 1)
        yield line
