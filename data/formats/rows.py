"""Turn a row into a conversation; its keys choose the format.

A format declares the keys that it needs and those that it also reads. Keys that change what a row
means and cannot be learned are refused by name; every other key is listed as not read. A new
format is a function, and its line in ``FORMATS``.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from itertools import product
from typing import Any, NamedTuple

from data.formats.judged import Judged, read_judged
from data.formats.names import (
    ANSWERS,
    OUR_FIELD,
    PAIRS,
    QUESTIONS,
    find_names,
    fold_name,
    lacking_half,
    missing_column,
    unknown_keys,
    what_lacks,
)
from data.formats.refused import LABEL, PREFERENCE, is_harmless, refusals
from data.formats.turns import check_order, parse_history, parse_turns
from data.formats.values import TEXT_ONLY, Changes, Fields, is_blank
from data.messages import tr
from data.types import Message, Row, RowError


class Format(NamedTuple):
    """A way to write a conversation as a row, by our names of the fields."""

    keys: tuple[str, ...]
    """A row that has all of these keys has this format."""
    optional: tuple[str, ...]
    """Keys that it also reads; null or blank means absent."""
    parse: Callable[[Fields, Counter[str]], list[Message]]
    sample: dict[str, Any]


class Reading(NamedTuple):
    """How rows with some keys are read."""

    format: Format | None
    names: dict[str, str]
    """The row's key for each of our names that the format reads."""
    refused: dict[str, str]
    """Keys that stop a row if they have a value, each with the reason."""
    unread: tuple[str, ...]
    lacks: str = ""
    """The half of a pair that is not there, where all keys are known: question or answer."""


class Conversation(NamedTuple):
    """The conversation of a row, and what of the row was not taken as it is filed."""

    messages: list[Message]
    unread: Counter[str]
    """Keys that were not read, with the number of values."""
    changes: Changes
    judged: Judged = Judged()
    """Further answers, which are not learned."""


class UnknownKeysError(RowError):
    """The keys of a row belong to no format.

    Args:
        keys: The keys.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        known = "; ".join("+".join(format_.keys) for format_ in FORMATS.values())
        shown = ", ".join(f"{key[:40]}…" if len(key) > 40 else key or "''" for key in keys)
        super().__init__(unknown_keys(shown, known))
        self.keys = keys

    def __reduce__(self) -> tuple:
        return UnknownKeysError, (self.keys,)


def to_messages(row: Row, columns: Mapping[str, str] | None = None) -> list[Message]:
    """Return the conversation of a row.

    Args:
        row: The record of the file.
        columns: As in ``read_row``.

    Raises:
        RowError: As ``read_row`` does.
    """
    return read_row(row, columns).messages


def read_row(row: Row, columns: Mapping[str, str] | None = None) -> Conversation:
    """Return the conversation of a row, and which of its keys were not read.

    Args:
        row: The record of the file.
        columns: The file's name for each field, like ``{"prompt": "question_text"}``; of the
            row's other fields, only the optional ones of a format are read.

    Raises:
        RowError: The row has unknown keys, or a field is missing, blank or of a wrong type.
    """
    fields = row.fields
    keys = tuple(fields)
    reading = _reading(keys, tuple((columns or {}).items()))
    for key, reason in reading.refused.items():
        if not is_blank(fields[key]) and not is_harmless(key, fields[key]):
            raise RowError(f"{key}: {tr(reason)}")
    if reading.format is None and reading.lacks:
        raise RowError(what_lacks(keys, reading.lacks))
    if reading.format is None:
        raise UnknownKeysError(tuple(map(str, keys)))
    unread = Counter({key: 1 for key in reading.unread if not is_blank(fields[key])})
    values = Fields(fields, reading.names, Counter())
    messages = reading.format.parse(values, unread)
    check_order(messages)
    return Conversation(messages, unread, values.changes, read_judged(values, messages))


@lru_cache(maxsize=1024)
def _reading(keys: tuple[str, ...], columns: tuple[tuple[str, str], ...]) -> Reading:
    """Decide how rows with these keys are read."""
    if missing := [name for _, name in columns if name not in keys]:
        raise RowError(missing_column(missing[0], keys))
    given = {OUR_FIELD[fold_name(field)]: name for field, name in columns}
    found = find_names((key for key in keys if key not in given.values()), OUR_FIELD)
    if given:
        optional = {*Judged._fields, *(x for one in FORMATS.values() for x in one.optional)}
        found = {name: key for name, key in found.items() if name in optional - {*QUESTIONS[:4]}}
    found |= given
    refused = {
        key: reason
        for key, reason in refusals(keys).items()
        if key not in given.values() and not (given and reason == PREFERENCE)
    }
    format_ = _choose(found)
    if format_ is not None and format_.keys == ("text",) and LABEL in keys:
        format_ = None  # rows for a classifier: their label is the answer
    known = (*format_.keys, *format_.optional, *Judged._fields) if format_ else ()
    names = {name: found[name] for name in known if name in found}
    read = {*names.values(), *refused}
    unread = tuple(key for key in keys if key not in read)
    known_keys = format_ is None and {*found.values(), *refused} >= {*keys}
    return Reading(format_, names, refused, unread, lacking_half(found) if known_keys else "")


def _choose(found: Mapping[str, str]) -> Format | None:
    """Return the first format of which all keys are there."""
    for format_ in FORMATS.values():
        if all(key in found for key in format_.keys):
            return format_
    for pair in product(QUESTIONS, ANSWERS):
        if pair[0] in found and pair[1] in found:
            return _pair(*pair)
    return None


def _parse_pair(question: str, answer: str, fields: Fields, unread: Counter[str]) -> list[Message]:
    """A question and its answer, after an optional system text and earlier turns."""
    asked = fields.text(question)
    # An instruction stands before what it is about, and a passage before the question on it.
    above = [fields.optional_text("instruction")] if question != "instruction" else []
    about = [fields.optional_text(name) for name in ("context", "input") if name != question]
    parts = [asked, *about] if question == "instruction" else [*above, *about, asked]
    return [
        *_system(fields),
        *parse_history(fields, unread),
        Message("user", "\n\n".join(filter(None, parts))),
        Message("assistant", fields.answer(answer)),
    ]


def _parse_turns(name: str, fields: Fields, unread: Counter[str]) -> list[Message]:
    return _system(fields) + parse_turns(fields, name, unread)


def _parse_text(fields: Fields, unread: Counter[str]) -> list[Message]:
    fields.changes[TEXT_ONLY] += 1
    return [Message("text", fields.text("text"))]


def _system(fields: Fields) -> list[Message]:
    text = fields.optional_text("system")
    return [Message("system", text)] if text else []


def _pair(question: str, answer: str) -> Format:
    others = [name for name in ("instruction", "context", "input") if name != question]
    sample = {question: "Hi?", answer: "Hello."}
    optional = ("system", "history", *others)
    return Format((question, answer), optional, partial(_parse_pair, question, answer), sample)


ASKED, SAID = {"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}
FROM = [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Hello."}]
FORMATS = {
    **{f"{question}/{answer}": _pair(question, answer) for question, answer in PAIRS},
    "messages": Format(
        ("messages",), ("system",), partial(_parse_turns, "messages"), {"messages": [ASKED, SAID]}
    ),
    "conversations": Format(
        ("conversations",),
        ("system",),
        partial(_parse_turns, "conversations"),
        {"conversations": FROM},
    ),
    "text": Format(("text",), (), _parse_text, {"text": "Hi? Hello."}),
}
