"""Read CSV and TSV files; every field is text, also ``NA`` and ``null``."""

import csv
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from data.messages import tr, tr_mark
from data.readers.table import read_table
from data.readers.text_file import MAX_ROW, bounded_lines, open_text
from data.types import BadRow, DataError, Row

# An answer can be longer than the csv module's default limit of 131,072 characters.
csv.field_size_limit(MAX_ROW)
SEPARATORS = {
    ",": tr_mark("commas"),
    ";": tr_mark("semicolons"),
    "\t": tr_mark("tabs"),
    "|": tr_mark("bars"),
}
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*$', re.IGNORECASE)
"""A first line that tells Excel the separator."""
COMPARED = 20
"""Records after the header that show a mixed separator."""
LISTED = 5
"""Lines that a note lists."""


class Layout(NamedTuple):
    """How a CSV or TSV file is written."""

    separator: str
    skipped: int = 0
    """Lines before the header: blank ones, and one that names the separator."""
    quoted: bool = True
    """Whether a quote can begin a field; without, each line is a record."""

    def __str__(self) -> str:
        name = tr(SEPARATORS.get(self.separator, repr(self.separator)))
        if self.quoted:
            return tr("separated by {name}", name=name)
        return tr("separated by {name}, read without quoting", name=name)


def find_layout(path: Path, encoding: str | None = None, separator: str | None = None) -> Layout:
    """Return how a CSV or TSV file is written.

    Args:
        path: The file.
        encoding: As in ``open_text``.
        separator: The separator, if it is given; None for the one that a ``sep=`` line names, a
            tab in a ``.tsv`` file, and elsewhere the one that splits the header into the most
            fields.

    Raises:
        DataError: ``separator`` is not one character that can separate fields, or the records
            have another one than the header.
    """
    if separator is not None and (len(separator) != 1 or separator in '\r\n"'):
        raise DataError(
            tr(
                "`separator` is {separator!r}; it must be one character, such as ;",
                separator=separator,
            )
        )
    with open_text(path, encoding, newline="") as file:
        skipped, header, named = 0, "", None
        for line in bounded_lines(file):
            if line.strip() and (named or not (named := SEPARATOR_LINE.match(line.strip()))):
                header = line
                break
            skipped += 1
        first = [line for line in islice(bounded_lines(file), COMPARED) if line.strip()]
    if separator is None and named:
        separator = named[1]
    if separator is None and ".tsv" in (suffix.lower() for suffix in path.suffixes):
        separator = "\t"
    if separator is None:
        separator = max(SEPARATORS, key=lambda candidate: _count_fields(header, candidate))
        _check_one_separator(path, header, first, separator)
    quoted = separator != "\t" or _quotes_pair(path, encoding, skipped)
    return Layout(separator, skipped, quoted)


def _check_one_separator(path: Path, header: str, lines: list[str], separator: str) -> None:
    """Check that the records do not have another separator than the header."""
    fields = _count_fields(header, separator)
    if fields == 1 or any(_count_fields(line, separator) != 1 for line in lines):
        return
    for other in SEPARATORS.keys() - {separator}:
        if lines and all(_count_fields(line, other) == fields for line in lines):
            raise DataError(
                tr(
                    "{path}: the header is separated by {header}, but the records by "
                    "{records}: use one of them in the whole file",
                    path=path,
                    header=tr(SEPARATORS[separator]),
                    records=tr(SEPARATORS[other]),
                )
            )


def _count_fields(line: str, separator: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=separator, strict=True), []))
    except csv.Error:
        return 0


def _quotes_pair(path: Path, encoding: str | None, skipped: int) -> bool:
    """Return whether all quotes of a file with tabs enclose fields, and no field swallows others.

    Many programs write such files without quoting, so that a quote is a letter.
    """
    with open_text(path, encoding, newline="") as file:
        lines = islice(_lines(file, path), skipped, None)
        reader = csv.reader(lines, delimiter="\t", strict=True)
        width, before = None, 0
        try:
            for values in reader:
                width = width or len(values)
                if reader.line_num > before + 1 and len(values) != width:
                    return False
                before = reader.line_num
        except csv.Error:
            return False
    return True


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of a file.

    Raises:
        DataError: A line is too long; where its record ends is unknown.
    """
    for number, line in enumerate(bounded_lines(file), 1):
        if len(line) > MAX_ROW:
            raise DataError(
                tr(
                    "{path}:{line}: this line is longer than {limit:,} characters: split its text",
                    path=path,
                    line=number,
                    limit=MAX_ROW,
                )
            )
        yield line


def read_csv(
    path: Path,
    encoding: str | None = None,
    separator: str | None = None,
    named: bool = True,
    notes: list[str] | None = None,
) -> Iterator[Row | BadRow]:
    """Yield the records of a CSV or TSV file, with the header's names as keys.

    Args:
        path: The file.
        encoding: As in ``open_text``.
        separator: As in ``find_layout``.
        named: As in ``read_table``.
        notes: Gets sentences about the layout, and about records that span lines.

    Raises:
        DataError: The header names a column twice, or a quote is not closed.
    """
    layout = find_layout(path, encoding, separator)
    swallowed: list[int] = []
    if notes is not None:
        notes.append(str(layout))
    with open_text(path, encoding, newline="") as file:
        records = _records(file, path, layout, swallowed)
        yield from read_table(records, path, named, notes)
    if swallowed and notes is not None:
        lines = ", ".join(map(str, swallowed[:LISTED]))
        if len(swallowed) > LISTED:
            lines = tr("{names} and {rest} more", names=lines, rest=len(swallowed) - LISTED)
        notes.append(
            tr(
                "a record spans lines that look like records of their own, from line "
                "{lines}: check its quotes",
                lines=lines,
            )
        )


def _records(
    file: TextIO, path: Path, layout: Layout, swallowed: list[int]
) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Yield the values of each record with its line; collect lines with doubtful quotes."""
    lines = islice(_lines(file, path), layout.skipped, None)
    split = partial(csv.reader, lines, delimiter=layout.separator, strict=True)
    reader = split() if layout.quoted else split(quoting=csv.QUOTE_NONE)
    width = 0
    while True:
        line = layout.skipped + reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if not width or layout.skipped + reader.line_num > line:
                # An unclosed quote joins lines: no later row can be recognized.
                place = f"{path}:{line}"
                raise DataError(
                    tr("{place}: not CSV from here on: {error}", place=place, error=error)
                ) from None
            yield line, BadRow(str(path), line, tr("not CSV: {error}", error=error))
            continue
        width = width or len(values)
        if layout.skipped + reader.line_num > line and width > 1:
            each = layout.separator.join(values).split("\n")
            if all(part.count(layout.separator) == width - 1 for part in each):
                swallowed.append(line)
        yield line, values
