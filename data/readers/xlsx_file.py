"""Read the first sheet of an Excel workbook with openpyxl; its cells become text."""

import datetime
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.messages import tr
from data.readers.table import read_table
from data.types import BadRow, DataError, Row

MAX_UNPACKED = 2**30
"""Bytes of a workbook's parts without compression; 100,000 rows have some ten million."""


def read_xlsx(
    path: Path, named: bool = True, notes: list[str] | None = None
) -> Iterator[Row | BadRow]:
    """Yield the records of the first sheet, with the names in its first filled row as keys.

    Of a formula, the value that Excel computed and saved is read.

    Args:
        path: The workbook.
        named: As in ``read_table``.
        notes: Gets a sentence about the sheet.

    Raises:
        DataError: The file is no workbook, or openpyxl is missing.
    """
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError:
        raise DataError(
            tr(
                "{path} is an Excel workbook, which needs openpyxl: pip install openpyxl, "
                "or save the sheet as CSV UTF-8",
                path=path,
            )
        ) from None
    try:
        _check_size(path)
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            sheets = book.worksheets
            if not sheets:
                raise DataError(
                    tr("{path} has no sheet with cells: save the table as CSV UTF-8", path=path)
                )
            sheet = sheets[0]
            sheet.reset_dimensions()  # some programs write a wrong size
            if notes is not None:
                others = ", ".join(other.title for other in sheets[1:])
                notes.append(
                    tr("the sheet {title}; not read: {others}", title=sheet.title, others=others)
                    if others
                    else tr("the sheet {title}", title=sheet.title)
                )
            records = (
                (number, [_to_text(value) for value in values])
                for number, values in enumerate(sheet.iter_rows(values_only=True), 1)
            )
            yield from read_table(records, path, named, notes, open_ended=True)
        finally:
            book.close()
    # A broken sheet is a SyntaxError of the XML parser.
    except (
        *(zipfile.BadZipFile, zlib.error, InvalidFileException, SyntaxError),
        *(KeyError, ValueError, EOFError),
    ) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            tr("{path}: not an Excel workbook: {error}", path=path, error=error)
        ) from None


def _check_size(path: Path) -> None:
    """Check what a workbook unpacks to: openpyxl holds all of its texts in memory.

    Raises:
        DataError: It is too much.
    """
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > MAX_UNPACKED:
        raise DataError(
            tr(
                "{path} unpacks to {size:.1f} GB, and at most {limit:.1f} GB are "
                "read: save the sheet as CSV UTF-8",
                path=path,
                size=size / 1e9,
                limit=MAX_UNPACKED / 1e9,
            )
        )


def _to_text(value: Any) -> str:
    """Return a cell as Excel shows it in its plainest form."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime):
        whole_day = value.time() == datetime.time()
        return value.date().isoformat() if whole_day else value.isoformat(" ", "seconds")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
