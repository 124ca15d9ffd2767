"""Read CSV and TSV: every field is text, whatever it spells."""

import csv
from collections.abc import Iterator
from pathlib import Path

from data.readers.text_file import open_text
from data.types import BadRow, DataError, Row

# An answer may be longer than the 131,072 characters that the csv module allows by default.
csv.field_size_limit(1 << 30)
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}


def separator(path: Path, encoding: str | None = None, told: str | None = None) -> str:
    """What parts the fields: as told, a tab in ``.tsv``, or what parts the header into most."""
    if told is not None:
        if len(told) != 1 or told in '\r\n"':
            raise DataError(f"data.separator is {told!r}; it must be one character")
        return told
    if ".tsv" in (suffix.lower() for suffix in path.suffixes):
        return "\t"
    with open_text(path, encoding, newline="") as file:
        header = next((line for line in file if line.strip()), "")
    return max(SEPARATORS, key=lambda mark: _fields(header, mark))


def _fields(line: str, mark: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=mark, strict=True), []))
    except csv.Error:
        return 0


def named(mark: str) -> str:
    """A separator in words."""
    return SEPARATORS.get(mark, repr(mark))


def read_table(
    path: Path, encoding: str | None = None, told: str | None = None
) -> Iterator[Row | BadRow]:
    """The records of a CSV or TSV file, by the names in its header.

    Raises:
        DataError: The header names a column twice, or a quote never closes.
    """
    mark = separator(path, encoding, told)
    with open_text(path, encoding, newline="") as file:
        reader = csv.reader(file, delimiter=mark, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if header is None or reader.line_num > line:
                    # Quotes that do not match over lines: the rest cannot be told apart into rows.
                    raise DataError(f"{path}:{line}: not CSV from here on: {error}") from None
                yield BadRow(str(path), line, f"not CSV: {error}")
                continue
            if not values:
                continue
            if header is None:
                header = [name.strip() for name in values]
                if twice := {name for name in header if header.count(name) > 1}:
                    raise DataError(f"{path}:{line}: column {min(twice)!r} is there twice")
            elif len(values) != len(header):
                reason = f"{len(values)} fields where the header has {len(header)}"
                yield BadRow(str(path), line, reason)
            else:
                yield Row(dict(zip(header, values, strict=True)), str(path), line)
