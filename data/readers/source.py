"""Read rows, each with its file and line, from files, folders and the hub."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data.messages import tr
from data.readers.csv_file import read_csv
from data.readers.encoding import AUTO, check_encoding, find_encoding
from data.readers.folder import Found, expand
from data.readers.hub import PREFIX, load_hub, read_hub, read_parquet, read_saved
from data.readers.identify import TEXT_SUFFIXES, identify, suffix_of
from data.readers.json_file import read_json, read_jsonl
from data.readers.xlsx_file import read_xlsx
from data.types import BadRow, DataError, Row


@dataclass(frozen=True)
class Source:
    """The files or data sets to read, and how they are written.

    Args:
        path: A file, a folder of files, ``hub:OWNER/NAME``, or several of these.
        encoding: The encoding of text files; None for UTF-8, or the one that the file's byte
            order mark names; ``auto`` for another one if it is certain.
        separator: The separator of CSV files; None to find it in the header.
        columns: The file's name for each field, like ``{"prompt": "question_text"}``; numbers for
            the columns of a table without a header.
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
    def hub_names(self) -> list[str]:
        """The names of the hub's data sets."""
        return [str(path)[len("hub:") :] for path in self._paths if str(path).startswith("hub:")]

    @property
    def _paths(self) -> list[str | Path]:
        return [self.path] if isinstance(self.path, str | Path) else list(self.path)

    def found(self) -> Found:
        """Return every file, folder and hub data set that is read, in order, and what is not.

        Raises:
            DataError: One does not exist, is of an unknown type, or is listed twice.
        """
        found = [expand(str(path)) for path in self._paths]
        parts = [part for one in found for part in one.train]
        if not parts:
            raise DataError(tr("`path` is empty: give at least one file"))
        if repeated := [part for part, count in Counter(parts).items() if count > 1]:
            raise DataError(tr("{name} is listed twice: list every file once", name=min(repeated)))
        validation = [part for one in found for part in one.validation]
        return Found(parts, validation, [note for one in found for note in one.notes])

    def parts(self) -> list[str]:
        """Return the parts that ``found`` has for training."""
        return self.found().train

    def validation(self) -> "Source | None":
        """Return the files of the folders whose names say that they validate."""
        paths = self.found().validation
        return replace(self, path=paths) if paths else None

    def read(self, part: str, notes: list[str] | None = None) -> Iterator[Row | BadRow]:
        """Yield the records of one part; a broken one comes as a BadRow.

        The memory needed does not grow with the file.

        Args:
            part: One of ``parts``.
            notes: Gets sentences about how the file is written.

        Raises:
            DataError: The file is empty, in another encoding, or broken so that later records
                cannot be recognized.
        """
        empty = True
        for row in self._records(part, notes):
            empty = False
            yield row
        if empty:
            raise DataError(tr("{part} holds no rows: add questions with their answers", part=part))

    def _records(self, part: str, notes: list[str] | None) -> Iterator[Row | BadRow]:
        if part.startswith(PREFIX):
            return read_hub(part)
        path = Path(part)
        if path.is_dir():
            return read_saved(path)
        file_type = identify(path)
        if file_type != suffix_of(part) and notes is not None:
            notes.append(tr("read as {file_type}", file_type=file_type))
        if file_type == ".parquet":
            return read_parquet(path)
        if file_type == ".xlsx":
            return read_xlsx(path, self._named, notes)
        encoding = self.encoding
        if encoding == AUTO:
            encoding, note = find_encoding(path)
            if note and notes is not None:
                notes.append(note)
        if file_type == ".jsonl":
            return read_jsonl(path, encoding)
        if file_type == ".json":
            return read_json(path, encoding)
        return read_csv(path, encoding, self.separator, self._named, notes)

    @property
    def _named(self) -> bool:
        """Whether tables have a header: columns are not given by number."""
        return not self.columns or not all(name.isdecimal() for name in self.columns.values())

    def check_encoding(self, part: str) -> None:
        """Check that a text file is in its encoding.

        Raises:
            WrongEncodingError: It is not.
        """
        text = not part.startswith(PREFIX) and os.path.isfile(part) and suffix_of(part)
        if text in TEXT_SUFFIXES and self.encoding != AUTO and identify(Path(part)) == text:
            check_encoding(Path(part), self.encoding)

    def check_unchanged(self, before: list[tuple[int, ...]]) -> None:
        """Check that no file was written to since ``states`` returned ``before``.

        Raises:
            DataError: One was.
        """
        parts = self.parts()
        for part, old, new in zip(parts, before, self.states(), strict=False):
            if old != new:
                raise DataError(
                    tr("{part} changed while it was read: wait until it is complete", part=part)
                )
        if len(parts) != len(before):
            raise DataError(
                tr(
                    "{source}: files were added or removed while they were read: try again",
                    source=self,
                )
            )

    def states(self) -> list[tuple[int, ...]]:
        """Return size, time of change and inode of every part; a hub data set has none."""
        return [tuple(x for file in _files(part) for x in _state(file)) for part in self.parts()]

    def fingerprint(self) -> str:
        """Return a hash of the content of all parts and of how they are read."""
        digest = hashlib.sha256(
            repr([self.encoding, self.separator, sorted(self.columns.items())]).encode()
        )
        for part in self.parts():
            digest.update(os.fsencode(part))
            if part.startswith(PREFIX):
                digest.update(load_hub(part)._fingerprint.encode())
            for name in _files(part):
                with open(name, "rb") as file:
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


def _files(part: str) -> list[str]:
    """Return the files of a part: a folder that ``datasets`` saved has several."""
    if part.startswith(PREFIX):
        return []
    path = Path(part)
    return sorted(str(file) for file in path.rglob("*")) if path.is_dir() else [part]


def _state(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_size, status.st_ctime_ns, status.st_ino
