"""Read JSONL, one object per line, and JSON, objects in a list or one after another."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from data.messages import tr
from data.readers.identify import WRAPPED
from data.readers.text_file import MAX_ROW, TOO_LONG, bounded_lines, open_text
from data.types import BadRow, DataError, Row, kind_of

BLOCK = 1 << 20
SPACE = re.compile(r"[ \t\r\n]*")


class ObjectDecoder(json.JSONDecoder):
    """A JSON decoder that notices an object with the same key twice."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._build_object)
        self._repeated_key: str | None = None

    def _build_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            self._repeated_key = next(name for name, count in counts.items() if count > 1)
        return fields

    def to_row(self, value: Any, path: Path, line: int) -> Row | BadRow:
        """Return the value that was just decoded as a row."""
        # Python's decoder silently keeps the last of two equal keys.
        repeated_key, self._repeated_key = self._repeated_key, None
        if not isinstance(value, dict):
            return BadRow(str(path), line, tr("not an object but {kind}", kind=kind_of(value)))
        if repeated_key is not None:
            text = tr("{key}: this key appears twice", key=repeated_key)
            return BadRow(str(path), line, text)
        return Row(value, str(path), line)


def read_jsonl(path: Path, encoding: str | None = None) -> Iterator[Row | BadRow]:
    """Yield the objects of a JSONL file; a broken line is one bad row."""
    decoder = ObjectDecoder()
    with open_text(path, encoding) as file:
        for number, line in enumerate(bounded_lines(file), 1):
            if len(line) > MAX_ROW:
                yield BadRow(str(path), number, tr(TOO_LONG, limit=MAX_ROW))
                continue
            text = line.strip()
            if not text:
                continue
            try:
                value = decoder.decode(text)
            except RecursionError:
                yield BadRow(str(path), number, tr("not JSON: nested too deeply"))
            except ValueError as error:
                # The decoder counts lines within this one line: only its column is useful.
                reason, column = getattr(error, "msg", error), getattr(error, "colno", 1)
                text = tr("not JSON: {error} at column {column}", error=reason, column=column)
                yield BadRow(str(path), number, text)
            else:
                yield decoder.to_row(value, path, number)


def read_json(path: Path, encoding: str | None = None) -> Iterator[Row | BadRow]:
    """Yield the objects of a JSON list, alone or in an object, or of objects one after another.

    Holds one object and one block of text in memory.

    Raises:
        DataError: The file holds something else, or is broken: no later object can be recognized.
    """
    decoder = ObjectDecoder()
    with open_text(path, encoding) as file:
        window = _Window(file)
        first = window.skip_space()
        if not first:
            return
        if first not in ("[", "{"):
            raise DataError(
                tr("{path} holds neither a list nor an object: it is not JSON with rows", path=path)
            )
        try:
            if first == "[":
                yield from _elements(window, decoder, path)
            elif wrapped := WRAPPED.match(window.text, window.position):
                window.position = wrapped.end()
                yield from _elements(window, decoder, path)
                _check_rest(window, decoder, path, wrapped[1])
            else:
                while window.skip_space():
                    yield decoder.to_row(window.decode(decoder), path, window.line)
                return
            if window.skip_space():
                raise json.JSONDecodeError("Extra data", window.text, window.position)
        except json.JSONDecodeError as error:
            line = window.line + window.text.count("\n", window.counted, error.pos)
            raise DataError(
                tr("{path}:{line}: not JSON: {error}", path=path, line=line, error=error.msg)
            ) from None
        except (RecursionError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                tr("{path}:{line}: not JSON: {error}", path=path, line=window.line, error=error)
            ) from None


def _elements(window: "_Window", decoder: ObjectDecoder, path: Path) -> Iterator[Row | BadRow]:
    """Yield the elements of the list at the position, and move behind it."""
    window.position += 1
    if window.skip_space() == "]":
        window.position += 1
        return
    while True:
        yield decoder.to_row(window.decode(decoder), path, window.line)
        end = window.skip_space()
        if end not in (",", "]"):
            raise json.JSONDecodeError("Expecting ',' or ']'", window.text, window.position)
        window.position += 1
        if end == "]":
            return
        window.skip_space()


def _check_rest(window: "_Window", decoder: ObjectDecoder, path: Path, name: str) -> None:
    """Read what stands behind the list of rows in an object.

    Raises:
        DataError: There is a second list of rows.
    """
    while window.skip_space() == ",":
        window.position += 1
        window.skip_space()
        key = window.decode(decoder)
        if window.skip_space() != ":":
            raise json.JSONDecodeError("Expecting ':'", window.text, window.position)
        window.position += 1
        window.skip_space()
        value = window.decode(decoder)
        if isinstance(value, list) and any(isinstance(row, dict) for row in value):
            raise DataError(
                tr(
                    "{path} has rows in {name} and in {key}: write each to its own file",
                    path=path,
                    name=name,
                    key=key,
                )
            )
    if window.skip_space() != "}":
        raise json.JSONDecodeError("Expecting '}'", window.text, window.position)
    window.position += 1


class _Window:
    """The part of a file's text that is in memory, with a position in it.

    Attributes:
        text: The part of the text.
        position: The index of the next character to read.
        line: The line of the file at index ``counted``.
        counted: Newlines before this index are counted in ``line``.
        at_end: Whether the file has no more text.
    """

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.position = file, "", 0
        self.line, self.counted = 1, 0
        self.at_end = False

    def skip_space(self) -> str:
        """Move to the next character that is not white space and return it; empty at the end."""
        while True:
            if space := SPACE.match(self.text, self.position):
                self.position = space.end()
            if self.position < len(self.text) or self.at_end:
                break
            self._read_more()
        self._count_lines()
        return self.text[self.position : self.position + 1]

    def decode(self, decoder: json.JSONDecoder) -> Any:
        """Decode the value at the position and move behind it."""
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.position)
            except json.JSONDecodeError as error:
                # A value cut off by the window's end gives an error near that end, or
                # "Unterminated string" at the string's start. Any other error is real.
                inside = error.pos < len(self.text) - 16
                if self.at_end or (inside and "Unterminated" not in error.msg):
                    raise
            else:
                # A number at the window's end may continue behind it.
                if self.at_end or end < len(self.text):
                    self.position = end
                    return value
            if len(self.text) - self.position > MAX_ROW:
                raise ValueError(tr("a row is longer than {limit:,} characters", limit=MAX_ROW))
            self._read_more()

    def _read_more(self) -> None:
        """Drop the text before the position and read another block."""
        # A value longer than a block is decoded again each time; doubling keeps that rare.
        block = self.file.read(max(BLOCK, len(self.text) - self.position))
        self._count_lines()
        self.text = self.text[self.position :] + block
        self.position = self.counted = 0
        self.at_end = not block

    def _count_lines(self) -> None:
        self.line += self.text.count("\n", self.counted, self.position)
        self.counted = self.position
