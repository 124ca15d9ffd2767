"""Turn a row into a conversation; its keys choose the format.

A new format is a function, and its line in ``FORMATS``.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from data.types import DataError, Message, Row, RowError, kind_of

ROLES = {"system", "user", "assistant"}
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
OPTIONAL_FIELDS = ("system", "input")
UNKNOWN_KEYS, MISSING_COLUMN = "unknown keys", "missing column"
SURROGATE = re.compile("[\ud800-\udfff]")
INVISIBLE = " \t\r\n\u00a0\u00ad\u200b\u200c\u200d\u2060\ufeff"
"""Characters that show nothing; ``str.strip`` alone does not remove half of them."""


class Format(NamedTuple):
    """A way to write a conversation as a row."""

    keys: tuple[str, ...]
    """A row that has all of these keys has this format."""
    parse: Callable[[dict[str, Any]], list[Message]]
    sample: dict[str, Any]


def to_messages(row: Row, columns: Mapping[str, str] | None = None) -> list[Message]:
    """Return the conversation of a row.

    Args:
        row: The record of the file.
        columns: The file's name for each field, like ``{"prompt": "question_text"}``; other
            fields of the row are then ignored, except ``system`` and ``input``.

    Raises:
        RowError: The row has unknown keys, or a field is missing, blank or of a wrong type.
    """
    fields = _rename(row.fields, columns) if columns else row.fields
    for format_ in FORMATS.values():
        if all(key in fields for key in format_.keys):
            messages = format_.parse(fields)
            _check_order(messages)
            return messages
    known = "; ".join("+".join(format_.keys) for format_ in FORMATS.values())
    raise RowError(f"{', '.join(map(str, row.fields))}: {UNKNOWN_KEYS}; known are {known}")


def check_columns(columns: Mapping[str, str]) -> None:
    """Check that ``columns`` names existing fields.

    Raises:
        DataError: It names another one.
    """
    known = {key: None for format_ in FORMATS.values() for key in (*format_.keys, *OPTIONAL_FIELDS)}
    if unknown := [name for name in columns if name not in known]:
        raise DataError(
            f"`columns` names unknown fields: {', '.join(unknown)}. Write it as "
            f"{{field: name in the file}}; the fields are {', '.join(known)}"
        )


def _rename(fields: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    if missing := [name for name in columns.values() if name not in fields]:
        keys = ", ".join(map(str, fields))
        raise RowError(f"{missing[0]}: {MISSING_COLUMN}; the row has {keys}")
    kept = {name: fields[name] for name in OPTIONAL_FIELDS if name in fields}
    return kept | {field: fields[name] for field, name in columns.items()}


def _parse_pair(question: str, answer: str) -> Callable[[dict[str, Any]], list[Message]]:
    def parse(fields: dict[str, Any]) -> list[Message]:
        return _single_turn(_text(fields, question), _text(fields, answer), fields)

    return parse


def _parse_instruction(fields: dict[str, Any]) -> list[Message]:
    instruction = _text(fields, "instruction")
    context = _text(fields, "input") if fields.get("input") not in (None, "") else ""
    question = f"{instruction}\n\n{context}" if context else instruction
    return _single_turn(question, _text(fields, "output"), fields)


def _single_turn(question: str, answer: str, fields: dict[str, Any]) -> list[Message]:
    return [*_system(fields), Message("user", question), Message("assistant", answer)]


def _system(fields: dict[str, Any]) -> list[Message]:
    present = fields.get("system") not in (None, "")
    return [Message("system", _text(fields, "system"))] if present else []


def _parse_messages(fields: dict[str, Any]) -> list[Message]:
    return _system(fields) + [
        _message(turn, f"messages[{i}]", "role", "content", {name: name for name in ROLES})
        for i, turn in enumerate(_turns(fields, "messages"))
    ]


def _parse_sharegpt(fields: dict[str, Any]) -> list[Message]:
    return _system(fields) + [
        _message(turn, f"conversations[{i}]", "from", "value", SHAREGPT_ROLES)
        for i, turn in enumerate(_turns(fields, "conversations"))
    ]


def _message(turn: Any, path: str, role_key: str, text_key: str, roles: dict[str, str]) -> Message:
    if not isinstance(turn, dict):
        raise RowError(f"{path}: not an object but {kind_of(turn)}")
    role = turn.get(role_key)
    if not isinstance(role, str) or role not in roles:
        raise RowError(f"{path}.{role_key}: {role!r} is not one of {', '.join(sorted(roles))}")
    train = turn.get("train", True)
    if not isinstance(train, bool):
        raise RowError(f"{path}.train: {train!r} is neither true nor false")
    return Message(roles[role], _text(turn, text_key, f"{path}."), train)


def _text(fields: dict[str, Any], key: str, path: str = "") -> str:
    if key not in fields:
        raise RowError(f"{path}{key}: missing")
    value = fields[key]
    if not isinstance(value, str):
        kind = "null" if value is None else f"not text but {kind_of(value)}"
        raise RowError(f"{path}{key}: {kind}")
    # White space at the ends would merge with the template's tokens next to it.
    text = value.strip()
    if not text.strip(INVISIBLE):
        raise RowError(f"{path}{key}: blank")
    if "\0" in text:
        raise RowError(f"{path}{key}: contains NUL, which is not text")
    if not text.isascii() and SURROGATE.search(text):
        raise RowError(f"{path}{key}: contains half a surrogate pair, which is not text")
    return text


def _turns(fields: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(fields[key], list) or not fields[key]:
        raise RowError(f"{key}: not a list of turns")
    return fields[key]


def _check_order(messages: list[Message]) -> None:
    """Check that user and assistant alternate after an optional system turn."""
    turns = messages[1:] if messages[0].role == "system" else messages
    for i, message in enumerate(turns):
        expected = "assistant" if i % 2 else "user"
        if message.role != expected:
            raise RowError(f"turn {i + 1}: {message.role}, expected {expected}")
    if not any(message.role == "assistant" and message.train for message in turns):
        raise RowError("no answer to learn: there is no assistant turn that trains")


FORMATS = {
    "prompt/response": Format(
        ("prompt", "response"),
        _parse_pair("prompt", "response"),
        {"prompt": "Hi?", "response": "Hello."},
    ),
    "question/answer": Format(
        ("question", "answer"),
        _parse_pair("question", "answer"),
        {"question": "Hi?", "answer": "Hello."},
    ),
    "prompt/completion": Format(
        ("prompt", "completion"),
        _parse_pair("prompt", "completion"),
        {"prompt": "Hi?", "completion": "Hello."},
    ),
    "instruction/input/output": Format(
        ("instruction", "output"),
        _parse_instruction,
        {"instruction": "Hi?", "input": "", "output": "Hello."},
    ),
    "messages": Format(
        ("messages",),
        _parse_messages,
        {
            "messages": [
                {"role": "user", "content": "Hi?"},
                {"role": "assistant", "content": "Hello."},
            ]
        },
    ),
    "conversations": Format(
        ("conversations",),
        _parse_sharegpt,
        {
            "conversations": [
                {"from": "human", "value": "Hi?"},
                {"from": "gpt", "value": "Hello."},
            ]
        },
    ),
}
