"""Read every part of a source, and note how it is written and what is wrong with it."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from data.readers.source import Source
from data.readers.wrong_encoding import WrongEncodingError
from data.report.row_report import RowReport
from data.types import BadRow, DataError, Row


def read_parts(source: Source, report: RowReport) -> Iterator[Row | BadRow]:
    """Yield the rows of every part, also after a part that cannot be read."""
    found = source.found()
    report.notes += found.notes
    for part in found.train:
        notes: list[str] = []
        try:
            source.check_encoding(part)
            yield from source.read(part, notes)
        except WrongEncodingError as error:
            report.unreadable.append(str(error))
            if error.guess is not None:
                # So that one refusal also has what is wrong with its rows.
                report.encodings[part] = error.guess
                with contextlib.suppress(DataError):
                    yield from replace(source, encoding=error.guess).read(part)
        except DataError as error:
            report.unreadable.append(str(error))
        if notes:
            report.notes.append(f"{part}: {'; '.join(notes)}")
