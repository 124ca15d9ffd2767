"""The values of an adapter_config.json, which may come from a stranger: checked by their kind."""

import re
from typing import Any

from lora.config import ConfigError
from lora.messages import tr, tr_mark

NUMBER = (int, float)
KINDS = {
    (bool,): tr_mark("{key} is {value}; it must be true or false"),
    (int,): tr_mark("{key} is {value}; it must be a whole number"),
    NUMBER: tr_mark("{key} is {value}; it must be a number"),
}
"""The error about a value of another kind."""
ITEMS = {
    int: tr_mark("{key} is {value}; it must be a list of numbers"),
    str: tr_mark("{key} is {value}; it must be a list of names"),
}


class AdapterError(ConfigError):
    """A folder does not hold an adapter for this model; the message says how it differs."""


def value_of(peft: dict[str, Any], key: str, kinds: tuple[type, ...]) -> Any:
    """Return an optional value; None if it is absent.

    Raises:
        AdapterError: It is of another kind.
    """
    value = peft.get(key)
    if value is not None and not _is(value, kinds):
        raise AdapterError(tr(KINDS[kinds], key=key, value=shown(value)))
    return value


def names_of(peft: dict[str, Any], key: str) -> list[str]:
    """Return an optional list of names; empty if it is absent.

    Raises:
        AdapterError: It is something else, such as a regular expression.
    """
    if isinstance(peft.get(key), str):
        # PEFT reads a text as a regular expression.
        raise AdapterError(
            tr(
                "{key} is the pattern {pattern}; it must be a list of names",
                key=key,
                pattern=shown(peft[key]),
            )
        )
    return list_of(peft, key, str)


def list_of(peft: dict[str, Any], key: str, kind: type) -> list:
    """Return an optional list of values of one kind; empty if it is absent.

    Raises:
        AdapterError: It is something else.
    """
    values = peft.get(key) or []
    if not isinstance(values, list) or not all(_is(value, (kind,)) for value in values):
        raise AdapterError(tr(ITEMS[kind], key=key, value=shown(values)))
    return values


def pattern_of(peft: dict[str, Any], key: str, kinds: tuple[type, ...]) -> dict:
    """Return an optional mapping of plain names to values; empty if it is absent.

    Raises:
        AdapterError: It is something else, or a name is a regular expression.
    """
    pattern = peft.get(key) or {}
    if not isinstance(pattern, dict) or not all(_is(value, kinds) for value in pattern.values()):
        raise AdapterError(
            tr("{key} is {pattern}; it must map names to numbers", key=key, pattern=shown(pattern))
        )
    # PEFT reads keys as regular expressions; a plain name means the same there and here.
    if odd := [name for name in pattern if not re.fullmatch(r"[\w.-]+", name)]:
        raise AdapterError(
            tr("{key} has the pattern {name}; it must hold names", key=key, name=shown(odd[0]))
        )
    return pattern


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def printable(text: str, length: int = 400) -> str:
    """Return untrusted text, shortened, with control characters escaped."""
    text = text if len(text) <= length else text[:length] + "…"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def shown(value: object) -> str:
    """Return an untrusted value as an error shows it."""
    return printable(repr(value), 80)
