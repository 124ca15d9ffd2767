"""A row becomes a conversation. Its keys say how: add a function, and its line in FORMATS."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from data.types import DataError, Message, Row, RowError

ROLES = {"system", "user", "assistant"}
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
EXTRA = ("system", "input")
"""Fields that a row may have beside those it is known by."""
SURROGATE = re.compile("[\ud800-\udfff]")
INVISIBLE = " \t\r\n\u00a0\u00ad\u200b\u200c\u200d\u2060\ufeff"
"""Characters of which an answer that shows nothing is made; half of them are no white space."""


class Format(NamedTuple):
    """A way to write a conversation as a row."""

    keys: tuple[str, ...]
    """The keys by which such a row is known."""
    read: Callable[[dict[str, Any]], list[Message]]
    sample: dict[str, Any]


def to_messages(row: Row, columns: Mapping[str, str] | None = None) -> list[Message]:
    """The conversation that a row holds.

    Args:
        row: As read.
        columns: The row's name for a field, by ours; fields of other formats are then left alone.

    Raises:
        RowError: The row has no known keys, or a field is missing, blank or of a wrong type.
    """
    fields = _renamed(row.fields, columns) if columns else row.fields
    for format_ in FORMATS.values():
        if all(key in fields for key in format_.keys):
            messages = format_.read(fields)
            _check_order(messages)
            return messages
    known = "; ".join("+".join(format_.keys) for format_ in FORMATS.values())
    raise RowError(
        f"{', '.join(map(str, row.fields))}: unknown keys; known are {known}. "
        "data.columns says which of yours is which"
    )


def check_columns(columns: Mapping[str, str]) -> None:
    """Look whether ``data.columns`` names fields that exist.

    Raises:
        DataError: It does not.
    """
    known = {key: None for format_ in FORMATS.values() for key in (*format_.keys, *EXTRA)}
    if unknown := [name for name in columns if name not in known]:
        raise DataError(
            f"data.columns names {', '.join(unknown)}; there are {', '.join(known)}. It is written "
            "as {ours: the file's}"
        )


def _renamed(fields: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    if absent := [name for name in columns.values() if name not in fields]:
        there = ", ".join(map(str, fields))
        raise RowError(f"{absent[0]}: missing, though data.columns names it; there are {there}")
    kept = {name: fields[name] for name in EXTRA if name in fields}
    return kept | {ours: fields[theirs] for ours, theirs in columns.items()}


def _pair(question: str, answer: str) -> Callable[[dict[str, Any]], list[Message]]:
    def read(fields: dict[str, Any]) -> list[Message]:
        return _conversation(_text(fields, question), _text(fields, answer), fields)

    return read


def _instruction(fields: dict[str, Any]) -> list[Message]:
    instruction = _text(fields, "instruction")
    given = _text(fields, "input") if fields.get("input") not in (None, "") else ""
    question = f"{instruction}\n\n{given}" if given else instruction
    return _conversation(question, _text(fields, "output"), fields)


def _conversation(question: str, answer: str, fields: dict[str, Any]) -> list[Message]:
    return [*_system(fields), Message("user", question), Message("assistant", answer)]


def _system(fields: dict[str, Any]) -> list[Message]:
    given = fields.get("system") not in (None, "")
    return [Message("system", _text(fields, "system"))] if given else []


def _messages(fields: dict[str, Any]) -> list[Message]:
    return _system(fields) + [
        _turn(turn, f"messages[{i}]", "role", "content", {name: name for name in ROLES})
        for i, turn in enumerate(_list(fields, "messages"))
    ]


def _sharegpt(fields: dict[str, Any]) -> list[Message]:
    return _system(fields) + [
        _turn(turn, f"conversations[{i}]", "from", "value", SHAREGPT_ROLES)
        for i, turn in enumerate(_list(fields, "conversations"))
    ]


def _turn(turn: Any, where: str, role_key: str, text_key: str, roles: dict[str, str]) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"{where}: not an object but a {type(turn).__name__}")
    role = turn.get(role_key)
    if not isinstance(role, str) or role not in roles:
        raise RowError(f"{where}.{role_key}: {role!r} is none of {', '.join(sorted(roles))}")
    train = turn.get("train", True)
    if not isinstance(train, bool):
        raise RowError(f"{where}.train: {train!r} is neither true nor false")
    return Message(roles[role], _text(turn, text_key, f"{where}."), train)


def _text(fields: dict[str, Any], key: str, where: str = "") -> str:
    if key not in fields:
        raise RowError(f"{where}{key}: missing")
    value = fields[key]
    if not isinstance(value, str):
        kind = "null" if value is None else f"not text but a {type(value).__name__}"
        raise RowError(f"{where}{key}: {kind}")
    # White space around a text would melt into the template's tokens beside it.
    text = value.strip()
    if not text.strip(INVISIBLE):
        raise RowError(f"{where}{key}: blank")
    if "\0" in text:
        raise RowError(f"{where}{key}: holds NUL, which is no text")
    if not text.isascii() and SURROGATE.search(text):
        raise RowError(f"{where}{key}: holds half a surrogate pair, which is no text")
    return text


def _list(fields: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(fields[key], list) or not fields[key]:
        raise RowError(f"{key}: not a list of turns")
    return fields[key]


def _check_order(messages: list[Message]) -> None:
    turns = messages[1:] if messages[0].role == "system" else messages
    for place, message in enumerate(turns):
        expected = "assistant" if place % 2 else "user"
        if message.role != expected:
            raise RowError(f"turn {place + 1}: {message.role} where {expected} is due")
    if not any(message.role == "assistant" and message.train for message in turns):
        raise RowError("no answer to learn: there is no assistant turn that trains")


FORMATS = {
    "prompt/response": Format(
        ("prompt", "response"),
        _pair("prompt", "response"),
        {"prompt": "Hi?", "response": "Hello."},
    ),
    "question/answer": Format(
        ("question", "answer"),
        _pair("question", "answer"),
        {"question": "Hi?", "answer": "Hello."},
    ),
    "prompt/completion": Format(
        ("prompt", "completion"),
        _pair("prompt", "completion"),
        {"prompt": "Hi?", "completion": "Hello."},
    ),
    "instruction/input/output": Format(
        ("instruction", "output"),
        _instruction,
        {"instruction": "Hi?", "input": "", "output": "Hello."},
    ),
    "messages": Format(
        ("messages",),
        _messages,
        {
            "messages": [
                {"role": "user", "content": "Hi?"},
                {"role": "assistant", "content": "Hello."},
            ]
        },
    ),
    "conversations": Format(
        ("conversations",),
        _sharegpt,
        {
            "conversations": [
                {"from": "human", "value": "Hi?"},
                {"from": "gpt", "value": "Hello."},
            ]
        },
    ),
}
