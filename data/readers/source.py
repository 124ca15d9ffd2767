"""Read rows, each with its file and line, from files, folders and the hub."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.readers.csv_file import find_separator, read_csv, separator_name
from data.readers.hub import PREFIX, load_hub, read_hub, read_parquet
from data.readers.json_file import read_json, read_jsonl
from data.types import BadRow, DataError, Row

TEXT_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = (*TEXT_SUFFIXES, ".parquet")


@dataclass(frozen=True)
class Source:
    """The files or data sets to read, and how they are written.

    Args:
        path: A file, a folder of files, ``hub:OWNER/NAME``, or several of these.
        encoding: The encoding of text files; None for UTF-8, or the one that the file's byte
            order mark names.
        separator: The separator of CSV files; None to find it in the header.
        columns: The file's name for each field, like ``{"prompt": "question_text"}``.
    """

    path: str | Path | Sequence[str | Path]
    encoding: str | None = None
    separator: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(map(str, self._paths))

    @property
    def name(self) -> str:
        """A short name, without folders."""
        return ", ".join(os.path.basename(str(path)) for path in self._paths)

    @property
    def _paths(self) -> list[str | Path]:
        return [self.path] if isinstance(self.path, str | Path) else list(self.path)

    def parts(self) -> list[str]:
        """Return every file and hub data set, in order.

        Raises:
            DataError: One does not exist, is of an unknown type, or is listed twice.
        """
        parts = [part for path in self._paths for part in _expand(str(path))]
        if not parts:
            raise DataError("`path` is empty: give at least one file")
        if repeated := [part for part, count in Counter(parts).items() if count > 1]:
            raise DataError(f"{min(repeated)} is listed twice: list every file once")
        return parts

    def read(self, part: str) -> Iterator[Row | BadRow]:
        """Yield the records of one part; a broken one comes as a BadRow.

        The memory needed does not grow with the file.

        Raises:
            DataError: The file is empty, in another encoding, or broken so that later records
                cannot be recognized.
        """
        empty = True
        for row in self._records(part):
            empty = False
            yield row
        if empty:
            raise DataError(f"{part} holds no rows: add questions with their answers")

    def _records(self, part: str) -> Iterator[Row | BadRow]:
        if part.startswith(PREFIX):
            return read_hub(part)
        path, file_type = Path(part), _file_type(part)
        if file_type == ".parquet":
            return read_parquet(path)
        if file_type == ".jsonl":
            return read_jsonl(path, self.encoding)
        if file_type == ".json":
            return read_json(path, self.encoding)
        return read_csv(path, self.encoding, self.separator)

    def describe_separator(self, part: str) -> str:
        """Return the name of a CSV file with its separator; empty for other parts."""
        if part.startswith(PREFIX) or _file_type(part) != ".csv":
            return ""
        separator = find_separator(Path(part), self.encoding, self.separator)
        return f"{part}, separated by {separator_name(separator)}"

    def check_unchanged(self, before: list[tuple[int, ...]]) -> None:
        """Check that no file was written to since ``states`` returned ``before``.

        Raises:
            DataError: One was.
        """
        parts = self.parts()
        for part, old, new in zip(parts, before, self.states(), strict=False):
            if old != new:
                raise DataError(f"{part} changed while it was read: wait until it is complete")
        if len(parts) != len(before):
            raise DataError(f"{self}: files were added or removed while they were read: try again")

    def states(self) -> list[tuple[int, ...]]:
        """Return size, time of change and inode of every part; a hub data set has none."""
        return [() if part.startswith(PREFIX) else _state(part) for part in self.parts()]

    def fingerprint(self) -> str:
        """Return a hash of the content of all parts and of how they are read."""
        digest = hashlib.sha256(
            repr([self.encoding, self.separator, sorted(self.columns.items())]).encode()
        )
        for part in self.parts():
            digest.update(os.fsencode(part))
            if part.startswith(PREFIX):
                digest.update(load_hub(part)._fingerprint.encode())
                continue
            with open(part, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def read(source: Source | str | Path) -> Iterator[Row | BadRow]:
    """Yield each record of a source; a broken one comes as a BadRow.

    Raises:
        DataError: A file is missing, empty, in another encoding, or of an unknown type.
    """
    if not isinstance(source, Source):
        source = Source(source)
    for part in source.parts():
        yield from source.read(part)


def _file_type(name: str) -> str:
    """Return the suffix that tells how a file is written, without ``.gz``; empty if unknown."""
    path = Path(name.lower())
    if path.suffix == ".gz" and Path(path.stem).suffix in TEXT_SUFFIXES:
        return Path(path.stem).suffix
    return path.suffix if path.suffix in SUFFIXES else ""


def _expand(name: str) -> list[str]:
    """Return the files of a folder, or the name itself."""
    path = Path(name)
    if name.startswith(PREFIX):
        return [name]
    if path.is_dir():
        files = sorted(str(file) for file in path.iterdir() if _is_data_file(file))
        if not files:
            raise DataError(f"{name} is a folder without {', '.join(SUFFIXES)} files")
        return files
    if not path.is_file():
        raise DataError(f"{name} does not exist{_list_neighbors(path)}")
    if not _file_type(name):
        raise DataError(
            f"{name}: the name must end in one of {', '.join(SUFFIXES)}; all but the last may be "
            "followed by .gz"
        )
    return [name]


def _state(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_size, status.st_ctime_ns, status.st_ino


def _is_data_file(path: Path) -> bool:
    return path.is_file() and bool(_file_type(path.name))


def _list_neighbors(path: Path) -> str:
    """Return the second half of an error about a missing file: which files there are."""
    if not path.parent.is_dir():
        return f", nor does {path.parent}"
    names = sorted(file.name for file in path.parent.iterdir() if _file_type(file.name))
    return f"; {path.parent} has {', '.join(names[:8])}" if names else ""
