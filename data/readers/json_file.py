"""Read JSONL, an object a line, and JSON, a list of objects."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from data.readers.text_file import open_text
from data.types import BadRow, DataError, Row

BLOCK = 1 << 20


class Objects(json.JSONDecoder):
    """A JSON decoder that remembers a key which an object of the last value has twice."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object)
        self._twice: str | None = None

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            names = [name for name, _ in pairs]
            self._twice = next(name for name in names if names.count(name) > 1)
        return fields

    def row(self, value: Any, path: Path, line: int) -> Row | BadRow:
        """The value just decoded, as a row."""
        # Python would take the last of the two, and nobody would know.
        twice, self._twice = self._twice, None
        if not isinstance(value, dict):
            return BadRow(str(path), line, f"not an object but a {type(value).__name__}")
        if twice is not None:
            return BadRow(str(path), line, f"{twice}: this key is there twice")
        return Row(value, str(path), line)


def read_lines(path: Path, encoding: str | None = None) -> Iterator[Row | BadRow]:
    """The objects of a JSONL file; a broken line is one bad row."""
    objects = Objects()
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text:
                continue
            try:
                value = objects.decode(text)
            except RecursionError:
                yield BadRow(str(path), number, "not JSON: nested too deeply")
            except ValueError as error:
                # The decoder's own line number is within this one line.
                reason = f"{getattr(error, 'msg', error)} at column {getattr(error, 'colno', 1)}"
                yield BadRow(str(path), number, f"not JSON: {reason}")
            else:
                yield objects.row(value, path, number)


def read_list(path: Path, encoding: str | None = None) -> Iterator[Row | BadRow]:
    """The objects of a JSON list, of which no more is held than one and a block of text.

    Raises:
        DataError: The file holds no list, or is broken: then nothing behind can be told apart.
    """
    objects = Objects()
    with open_text(path, encoding) as file:
        window = _Window(file)
        first = window.skip()
        if not first:
            return
        if first != "[":
            raise DataError(
                f"{path} must hold a list of objects; for one object a line, use .jsonl"
            )
        window.place += 1
        try:
            if window.skip() == "]":
                return
            while True:
                yield objects.row(window.value(objects), path, window.line)
                end = window.skip()
                if end not in (",", "]"):
                    raise json.JSONDecodeError("Expecting ',' or ']'", window.text, window.place)
                window.place += 1
                if end == "]":
                    break
                window.skip()
            if window.skip():
                raise json.JSONDecodeError("Extra data", window.text, window.place)
        except json.JSONDecodeError as error:
            line = window.line + window.text.count("\n", window.counted, error.pos)
            raise DataError(f"{path}:{line}: not JSON: {error.msg}") from None
        except (RecursionError, ValueError) as error:
            raise DataError(f"{path}:{window.line}: not JSON: {error}") from None


class _Window:
    """The part of a text that is held: a place in it, and the line there."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.place = file, "", 0
        self.line, self.counted = 1, 0
        self.ended = False

    def more(self) -> None:
        """Hold a block more; what lies before the place is let go."""
        # A value longer than a block is decoded anew each time: doubling keeps that rare.
        block = self.file.read(max(BLOCK, len(self.text) - self.place))
        self._count()
        self.text = self.text[self.place :] + block
        self.place = self.counted = 0
        self.ended = not block

    def skip(self) -> str:
        """Go to the next character that is no white space; empty at the end."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in " \t\r\n":
                self.place += 1
            if self.place < len(self.text) or self.ended:
                break
            self.more()
        self._count()
        return self.text[self.place : self.place + 1]

    def value(self, decoder: json.JSONDecoder) -> Any:
        """Decode the value at the place, and go behind it."""
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                # What was cut off by the window's end faults there, or where its text began.
                inside = error.pos < len(self.text) - 16
                if self.ended or (inside and "Unterminated" not in error.msg):
                    raise
            else:
                # A number may go on behind the window.
                if self.ended or end < len(self.text):
                    self.place = end
                    return value
            self.more()

    def _count(self) -> None:
        self.line += self.text.count("\n", self.counted, self.place)
        self.counted = self.place
