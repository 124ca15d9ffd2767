"""Read a data file record by record, each with its file and line; split rows in two."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data.types import BadRow, DataError, Row

# An answer may be longer than the 131,072 characters that the csv module allows by default.
csv.field_size_limit(1 << 30)
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")


def read(path: str | Path) -> Iterator[Row | BadRow]:
    """Yield each record of a JSONL, JSON, CSV or TSV file; a broken one comes as a BadRow.

    Memory does not grow with the file, except for ``.json``, which is one value.

    Raises:
        DataError: The file is missing, empty, not UTF-8, or of another kind.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    readers = {".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_csv, ".tsv": _read_csv}
    if suffix not in readers:
        raise DataError(f"{path}: the name must end in one of {', '.join(SUFFIXES)}")
    if path.is_dir():
        raise DataError(f"{path} is a folder; name a file in it")
    if not path.is_file():
        raise DataError(f"{path} does not exist{_neighbours(path)}")
    empty = True
    try:
        for row in readers[suffix](path):
            empty = False
            yield row
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte 0x{error.object[error.start]:02x}); save it as UTF-8"
        ) from None
    if empty:
        raise DataError(f"{path} holds no rows: it needs questions with their answers")


def split(groups: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part rows in two, so that no question stands on both sides.

    Args:
        groups: (rows,) equal numbers mark rows with the same question.
        fraction: The share of rows to hold out, in [0, 1).
        seed: Decides which.

    Returns:
        Row indices of the training and of the held-out side, each ascending.

    Raises:
        DataError: Either side would be empty.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"data.val_fraction is {fraction}; it must be in [0, 1)")
    rows = np.arange(len(groups))
    if fraction == 0:
        return rows, rows[:0]
    unique, member = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(unique))
    held_rows = np.bincount(member)[order].cumsum()
    held = order[: max(1, int(np.searchsorted(held_rows, round(fraction * len(rows)), "right")))]
    val = np.isin(member, held)
    if val.all():
        raise DataError(
            f"{len(unique)} different questions are too few to hold out {fraction:.0%} of them; "
            "add rows, or set data.val_fraction to 0"
        )
    return rows[~val], rows[val]


def _read_jsonl(path: Path) -> Iterator[Row | BadRow]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield _parse(text, path, number)


def _parse(text: str, path: Path, line: int) -> Row | BadRow:
    try:
        value = json.loads(text)
    except RecursionError:
        return BadRow(str(path), line, "not JSON: nested too deeply")
    except ValueError as error:
        # The decoder's own line number is within this one line.
        reason = getattr(error, "msg", str(error))
        return BadRow(str(path), line, f"not JSON: {reason} at column {getattr(error, 'colno', 1)}")
    return _row(value, path, line)


def _row(value: Any, path: Path, line: int) -> Row | BadRow:
    if not isinstance(value, dict):
        return BadRow(str(path), line, f"not an object but a {type(value).__name__}")
    return Row(value, str(path), line)


def _read_json(path: Path) -> Iterator[Row | BadRow]:
    text = path.read_bytes().decode("utf-8-sig")
    if not text.strip():
        return
    if not text.lstrip().startswith("["):
        raise DataError(f"{path} must hold a list of objects; for one object a line, use .jsonl")
    decoder = json.JSONDecoder()
    place, line, counted = text.index("[") + 1, 1, 0
    try:
        while text[(place := _next(text, place)) : place + 1] != "]":
            line += text.count("\n", counted, place)
            counted = place
            value, place = decoder.raw_decode(text, place)
            yield _row(value, path, line)
            place = _next(text, place)
            if text[place : place + 1] not in (",", "]"):
                raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
            place += text[place] == ","
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:
        raise DataError(f"{path}:{line}: not JSON: {error}") from None


def _next(text: str, place: int) -> int:
    """The next place that holds no white space."""
    while text[place : place + 1].isspace():
        place += 1
    return place


def _read_csv(path: Path) -> Iterator[Row | BadRow]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = next((line for line in file if line.strip()), "")
        file.seek(0)
        separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
        reader = csv.reader(file, delimiter=separator, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if reader.line_num > line:
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


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor does {path.parent}"
    names = sorted(p.name for p in path.parent.iterdir() if p.is_file() and p.suffix in SUFFIXES)
    return f"; {path.parent} has {', '.join(names[:8])}" if names else ""
