"""Read rows, each with its file and line, from wherever they lie."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.readers.csv_file import named, read_table, separator
from data.readers.hub import PREFIX, load, read_hub, read_parquet
from data.readers.json_file import read_lines, read_list
from data.types import BadRow, DataError, Row

TEXTS = (".jsonl", ".json", ".csv", ".tsv")
SUFFIXES = (*TEXTS, ".parquet")


@dataclass(frozen=True)
class Source:
    """Where rows come from, and how they are written there.

    Args:
        path: A file, a folder of files, ``hub:OWNER/NAME``, or several of these.
        encoding: Of text files; None for UTF-8, or what their byte order mark says.
        separator: Of CSV files; None to find it in the header.
        columns: The file's name for a field, by ours.
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
        """Every file and hub data set, in order.

        Raises:
            DataError: One does not exist, or is of no known kind.
        """
        parts = [part for path in self._paths for part in _expand(str(path))]
        if not parts:
            raise DataError("data.path names no file")
        if twice := {part for part in parts if parts.count(part) > 1}:
            raise DataError(f"data.path names {min(twice)} twice")
        return parts

    def read(self, part: str) -> Iterator[Row | BadRow]:
        """The records of one part; a broken one comes as a BadRow.

        Memory does not grow with the file.

        Raises:
            DataError: The file is empty, in another encoding, or broken beyond the record.
        """
        empty = True
        for row in self._records(part):
            empty = False
            yield row
        if empty:
            raise DataError(f"{part} holds no rows: it needs questions with their answers")

    def _records(self, part: str) -> Iterator[Row | BadRow]:
        if part.startswith(PREFIX):
            return read_hub(part)
        path, kind = Path(part), _kind(part)
        if kind == ".parquet":
            return read_parquet(path)
        if kind == ".jsonl":
            return read_lines(path, self.encoding)
        if kind == ".json":
            return read_list(path, self.encoding)
        return read_table(path, self.encoding, self.separator)

    def described(self, part: str) -> str:
        """How a part is read, where that had to be found out."""
        if part.startswith(PREFIX) or _kind(part) != ".csv":
            return part
        return f"{part}, parted by {named(separator(Path(part), self.encoding, self.separator))}"

    def fingerprint(self) -> str:
        """Equal for equal rows read in the same way."""
        digest = hashlib.sha256(
            repr([self.encoding, self.separator, sorted(self.columns.items())]).encode()
        )
        for part in self.parts():
            digest.update(part.encode())
            if part.startswith(PREFIX):
                digest.update(load(part)._fingerprint.encode())
                continue
            with open(part, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


def read(source: Source | str | Path) -> Iterator[Row | BadRow]:
    """Yield each record of a source; a broken one comes as a BadRow.

    Raises:
        DataError: A file is missing, empty, in another encoding, or of another kind.
    """
    if not isinstance(source, Source):
        source = Source(source)
    for part in source.parts():
        yield from source.read(part)


def _kind(name: str) -> str:
    """The suffix that says how a file is written; empty where none does."""
    path = Path(name.lower())
    if path.suffix == ".gz" and Path(path.stem).suffix in TEXTS:
        return Path(path.stem).suffix
    return path.suffix if path.suffix in SUFFIXES else ""


def _expand(name: str) -> list[str]:
    path = Path(name)
    if name.startswith(PREFIX):
        return [name]
    if path.is_dir():
        files = sorted(str(file) for file in path.iterdir() if file.is_file() and _kind(file.name))
        if not files:
            raise DataError(f"{name} is a folder without {', '.join(SUFFIXES)} files")
        return files
    if not path.is_file():
        raise DataError(f"{name} does not exist{_neighbours(path)}")
    if not _kind(name):
        raise DataError(
            f"{name}: the name must end in one of {', '.join(SUFFIXES)}; all but the last may have "
            ".gz behind it"
        )
    return [name]


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f", nor does {path.parent}"
    names = sorted(file.name for file in path.parent.iterdir() if _kind(file.name))
    return f"; {path.parent} has {', '.join(names[:8])}" if names else ""
