"""The values of a row or a turn as text: kept as they are filed, or refused by name."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from data.messages import tr, tr_mark
from data.text import SURROGATE
from data.types import RowError, kind_of

INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
"""Characters that show nothing and are no white space."""
VISIBLE = re.compile(rf"[^\s{INVISIBLE}]")
BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
AS_TEXT = tr_mark("answers that are numbers or true/false are learned as text")
AS_JSON = tr_mark("answers that are objects are learned as JSON")
TIDIED = tr_mark(
    "answers had blank lines or one space before them, or white space behind, which is removed"
)
TEXT_ONLY = tr_mark("rows have a text alone, without question and answer: it is learned whole")

Changes = Counter[str]
"""How many values were not taken as they are filed, by what was done."""


def is_blank(value: Any) -> bool:
    """Return whether an optional value is absent: null, blank, an empty list, not a number."""
    if isinstance(value, str):
        return not VISIBLE.search(value)
    return value is None or value in ([], {}) or value != value


class Fields:
    """The values of a row or of a turn, by our names.

    Args:
        values: The row or turn.
        names: Its key for each of our names.
        changes: Counts the values that are not taken as they are filed.
        path: What stands before a key in messages, such as ``messages[0].``.
    """

    def __init__(
        self, values: Mapping[str, Any], names: Mapping[str, str], changes: Changes, path: str = ""
    ) -> None:
        self.values, self.names, self.changes, self.path = values, names, changes, path

    def where(self, name: str) -> str:
        """Return a field as messages name it: with the file's key."""
        return f"{self.path}{self.names.get(name, name)}"

    def get(self, name: str) -> Any:
        """Return an optional value; None if it is absent or blank."""
        value = self.values.get(self.names[name]) if name in self.names else None
        return None if is_blank(value) else value

    def optional_text(self, name: str) -> str:
        """Return an optional text; empty if it is absent or blank.

        Raises:
            RowError: It is not text.
        """
        return "" if self.get(name) is None else self.text(name)

    def text(self, name: str) -> str:
        """Return a text as it is filed.

        Raises:
            RowError: It is missing, blank, or not text.
        """
        if name not in self.names:
            raise RowError(tr("{field}: missing", field=self.where(name)))
        return to_text(self.values[self.names[name]], self.where(name))

    def texts(self, name: str) -> tuple[str, ...]:
        """Return an optional list of texts; a text is a list as JSON, or one text in each line.

        Raises:
            RowError: It is something else, or one of its items is blank or not text.
        """
        value = self.get(name)
        if isinstance(value, str):
            value = _parse_texts(value)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise RowError(
                tr(
                    "{field}: not a list of texts but {kind}",
                    field=self.where(name),
                    kind=kind_of(value),
                )
            )
        items = (str(x) if type(x) in (int, float) else x for x in value)
        return tuple(tidy(to_text(x, f"{self.where(name)}[{i}]")) for i, x in enumerate(items))

    def answer(self, name: str) -> str:
        """Return a text to learn; numbers and objects become text, and are counted.

        Raises:
            RowError: It is missing, blank, or a list.
        """
        value = self.values.get(self.names[name]) if name in self.names else None
        if isinstance(value, bool | int | float) and value == value:
            self.changes[AS_TEXT] += 1
            return json.dumps(value)
        if isinstance(value, dict) and value:
            self.changes[AS_JSON] += 1
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        text = self.text(name)
        tidied = tidy(text)
        self.changes[TIDIED] += tidied != text
        return tidied


def _parse_texts(text: str) -> list[Any]:
    try:
        parsed = json.loads(text) if text.lstrip().startswith("[") else None
    except (ValueError, RecursionError):
        parsed = None
    return parsed if isinstance(parsed, list) else [x for x in text.splitlines() if not is_blank(x)]


def to_text(value: Any, where: str) -> str:
    """Return a value that must be a text, or a list of parts with texts.

    Raises:
        RowError: It is blank, not text, or contains what no text can.
    """
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        value = "".join(_part(part, f"{where}[{i}]") for i, part in enumerate(value))
    if not isinstance(value, str):
        absent = value is None or value != value
        if absent:
            raise RowError(f"{where}: null")
        raise RowError(tr("{where}: not text but {kind}", where=where, kind=kind_of(value)))
    if not VISIBLE.search(value):
        raise RowError(tr("{where}: blank", where=where))
    if "\0" in value:
        raise RowError(tr("{where}: contains NUL, which is not text", where=where))
    if not value.isascii() and SURROGATE.search(value):
        raise RowError(
            tr("{where}: contains half a surrogate pair, which is not text", where=where)
        )
    return value


def _part(part: dict[str, Any], where: str) -> str:
    kind = part.get("type", "text")
    if kind not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
        raise RowError(
            tr(
                "{where}: a part of type {kind!r}; only parts with a text can be learned",
                where=where,
                kind=kind,
            )
        )
    return part["text"]


def tidy(answer: str) -> str:
    """Return an answer without blank lines before it, white space behind it, and one first space.

    The first space is that of old prompt and completion files. One before a text with further
    indented lines is kept: it is the text's own indentation.
    """
    text = BLANK_LINES.sub("", answer).rstrip()
    if text[:1] == " " and not text[1:2].isspace() and "\n " not in text:
        return text[1:]
    return text
