"""Turn the records of a table into rows: its header, empty columns and empty records."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from data.messages import tr, tr_n
from data.types import BadRow, DataError, Row


def read_table(
    records: Iterable[tuple[int, list[str] | BadRow]],
    path: Path,
    named: bool = True,
    notes: list[str] | None = None,
    open_ended: bool = False,
) -> Iterator[Row | BadRow]:
    """Yield rows with the header's names as keys.

    Columns without a name and without values, as spreadsheets leave at the right edge, and records
    without a value are passed over.

    Args:
        records: The values of each record, with its line.
        path: The file, for messages.
        named: Whether the first record is a header; the keys are otherwise 1, 2, …
        notes: Gets the number of empty records.
        open_ended: Whether a record leaves out the blank cells at its end, as a sheet does.

    Raises:
        DataError: The header names a column twice.
    """
    header: list[str] | None = None
    empty = 0
    for line, values in records:
        if isinstance(values, BadRow):
            yield values
            continue
        if not any(value.strip() for value in values):
            empty += header is not None and len(values) > 0
            continue
        if header is None:
            header = _header(values, named, path, line)
            if named:
                continue
        while len(values) > len(header) and not values[-1].strip():
            values = values[:-1]
        if open_ended:
            values = [*values, *[""] * (len(header) - len(values))]
        if len(values) != len(header):
            reason = tr_n(
                "{n} field, but the header has {header}",
                "{n} fields, but the header has {header}",
                len(values),
                header=len(header),
            )
            yield BadRow(str(path), line, reason)
        else:
            yield Row(dict(zip(header, values, strict=True)), str(path), line)
    if empty and notes is not None:
        notes.append(tr("{empty} empty records passed over", empty=empty))


def _header(values: list[str], named: bool, path: Path, line: int) -> list[str]:
    while not values[-1].strip():
        values = values[:-1]
    if not named:
        return [str(number) for number in range(1, len(values) + 1)]
    # An index that pandas wrote has no name.
    header = [name.strip() or f"column {i}" for i, name in enumerate(values, 1)]
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        raise DataError(
            tr(
                "{path}:{line}: column {name!r} appears twice",
                path=path,
                line=line,
                name=min(repeated),
            )
        )
    return header
