"""Read CSV and TSV files; every field is text, also ``NA`` and ``null``."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from data.readers.text_file import MAX_ROW, TOO_LONG, bounded_lines, open_text
from data.types import BadRow, DataError, Row

# An answer can be longer than the csv module's default limit of 131,072 characters.
csv.field_size_limit(MAX_ROW)
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def find_separator(path: Path, encoding: str | None = None, separator: str | None = None) -> str:
    """Return the separator of a CSV or TSV file.

    Args:
        path: The file.
        encoding: As in ``open_text``.
        separator: The answer, if it is given; None for a tab in a ``.tsv`` file, and elsewhere
            the character that splits the header into the most fields.

    Raises:
        DataError: ``separator`` is not one character that can separate fields.
    """
    if separator is not None:
        if len(separator) != 1 or separator in '\r\n"':
            raise DataError(f"`separator` is {separator!r}; it must be one character, such as ;")
        return separator
    if ".tsv" in (suffix.lower() for suffix in path.suffixes):
        return "\t"
    with open_text(path, encoding, newline="") as file:
        header = next((line for line in bounded_lines(file) if line.strip()), "")
    return max(SEPARATORS, key=lambda candidate: _count_fields(header, candidate))


def _count_fields(line: str, separator: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=separator, strict=True), []))
    except csv.Error:
        return 0


def separator_name(separator: str) -> str:
    """Return a separator in words."""
    return SEPARATORS.get(separator, repr(separator))


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of a file.

    Raises:
        DataError: A line is too long; where its record ends is unknown.
    """
    for number, line in enumerate(bounded_lines(file), 1):
        if len(line) > MAX_ROW:
            raise DataError(f"{path}:{number}: this line is {TOO_LONG}: split its text")
        yield line


def read_csv(
    path: Path, encoding: str | None = None, separator: str | None = None
) -> Iterator[Row | BadRow]:
    """Yield the records of a CSV or TSV file, with the header's names as keys.

    Raises:
        DataError: The header names a column twice, or a quote is not closed.
    """
    separator = find_separator(path, encoding, separator)
    with open_text(path, encoding, newline="") as file:
        reader = csv.reader(_lines(file, path), delimiter=separator, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if header is None or reader.line_num > line:
                    # An unclosed quote joins lines: no later row can be recognized.
                    raise DataError(f"{path}:{line}: not CSV from here on: {error}") from None
                yield BadRow(str(path), line, f"not CSV: {error}")
                continue
            if not values:
                continue
            if header is None:
                header = [name.strip() for name in values]
                if repeated := [name for name, count in Counter(header).items() if count > 1]:
                    raise DataError(f"{path}:{line}: column {min(repeated)!r} appears twice")
            elif len(values) != len(header):
                reason = f"{len(values)} fields, but the header has {len(header)}"
                yield BadRow(str(path), line, reason)
            else:
                yield Row(dict(zip(header, values, strict=True)), str(path), line)
