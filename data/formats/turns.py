"""The turns of a conversation: the keys that they may have, their roles and their order."""

import json
from collections import Counter
from functools import lru_cache
from typing import Any, NamedTuple

from data.formats.names import OUR_ROLE, OUR_TURN_FIELD, ROLES, find_names, fold_name
from data.formats.refused import NOT_LEARNED
from data.formats.values import Changes, Fields, is_blank
from data.messages import tr, tr_mark
from data.types import Message, RowError, kind_of

FROM_JSON = tr_mark("lists of turns are filed as text, which is read as JSON")


class TurnNames(NamedTuple):
    """What the keys of a turn mean."""

    names: dict[str, str]
    refused: tuple[str, ...]
    unread: tuple[str, ...]


@lru_cache(maxsize=1024)
def _names(keys: tuple[str, ...]) -> TurnNames:
    names = find_names(keys, OUR_TURN_FIELD)
    refused = tuple(key for key in keys if key in NOT_LEARNED)
    read = {*names.values(), *refused}
    return TurnNames(names, refused, tuple(key for key in keys if key not in read))


def parse_turns(fields: Fields, name: str, unread: Counter[str]) -> list[Message]:
    """Return the turns of a field that holds a list of them.

    Args:
        fields: The row.
        name: The field.
        unread: Counts the keys that no turn has a meaning for.

    Raises:
        RowError: It is not a list of turns, or a turn cannot be learned as it is meant.
    """
    where = fields.where(name)
    turns = _list(fields, name)
    if not isinstance(turns, list):
        if isinstance(turns, str):
            raise RowError(tr("{where}: not a list of turns, and not the JSON of one", where=where))
        raise RowError(tr("{where}: not a list of turns", where=where))
    return _read_turns(turns, where, fields.changes, unread)


def _read_turns(
    turns: list[Any], where: str, changes: Changes, unread: Counter[str]
) -> list[Message]:
    return [_turn(turn, f"{where}[{i}]", changes, unread, where) for i, turn in enumerate(turns)]


def parse_history(fields: Fields, unread: Counter[str]) -> list[Message]:
    """Return the earlier turns of a row: a list of [question, answer], or of turns."""
    history, where = _list(fields, "history"), fields.where("history")
    if history is None:
        return []
    if not isinstance(history, list):
        raise RowError(
            tr(
                "{where}: not a list of [question, answer] but {kind}",
                where=where,
                kind=kind_of(history),
            )
        )
    if all(isinstance(turn, dict) for turn in history):
        return _read_turns(history, where, fields.changes, unread)
    messages = []
    for i, pair in enumerate(history):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise RowError(tr("{where}: not [question, answer]", where=f"{where}[{i}]"))
        values = Fields(
            {"0": pair[0], "1": pair[1]}, {"0": "0", "1": "1"}, fields.changes, f"{where}[{i}]."
        )
        messages += [Message("user", values.text("0")), Message("assistant", values.answer("1"))]
    return messages


def _list(fields: Fields, name: str) -> Any:
    """Return an optional value; a text that is the JSON of a list, as tables have it, is the list.

    Raises:
        RowError: An object in the list has a key twice.
    """
    value = fields.get(name)
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value

    def turn(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Python's decoder silently keeps the last of two equal keys.
        if repeated := [key for key, count in Counter(k for k, _ in pairs).items() if count > 1]:
            raise RowError(
                tr(
                    "{field}: {key}: this key appears twice",
                    field=fields.where(name),
                    key=repeated[0],
                )
            )
        return dict(pairs)

    try:
        turns = json.loads(value, object_pairs_hook=turn)
    except RowError:
        raise
    except (ValueError, RecursionError):
        return value
    fields.changes[FROM_JSON] += 1
    return turns


def _turn(turn: Any, path: str, changes: Changes, unread: Counter[str], where: str) -> Message:
    if not isinstance(turn, dict):
        raise RowError(tr("{path}: not an object but {kind}", path=path, kind=kind_of(turn)))
    meaning = _names(tuple(turn))
    for key in meaning.refused:
        if not is_blank(turn[key]):
            raise RowError(f"{path}.{key}: {tr(NOT_LEARNED[key])}")
    for key in meaning.unread:
        unread[f"{where}[].{key}"] += not is_blank(turn[key])
    fields = Fields(turn, meaning.names, changes, f"{path}.")
    name = turn.get(meaning.names.get("role"))
    role = OUR_ROLE.get(fold_name(name)) if isinstance(name, str) else None
    if role is None:
        known = ", ".join(sorted(set(ROLES) - {"text"}))
        raise RowError(
            tr(
                "{field}: {name!r} is not one of {known}",
                field=fields.where("role"),
                name=name,
                known=known,
            )
        )
    content = fields.answer("content") if role == "assistant" else fields.text("content")
    return Message(role, content, _trains(fields), fields.optional_text("reasoning_content"))


def _trains(fields: Fields) -> bool:
    """Return whether a turn is learned: neither ``train: false`` nor ``weight: 0``."""
    train, weight = fields.get("train"), fields.get("weight")
    if train is not None and not isinstance(train, bool):
        raise RowError(
            tr(
                "{field}: {value!r} is neither true nor false",
                field=fields.where("train"),
                value=train,
            )
        )
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise RowError(
            tr(
                "{field}: {value!r} is neither 0 nor 1",
                field=fields.where("weight"),
                value=weight,
            )
        )
    return train is not False and weight != 0


def check_order(messages: list[Message]) -> None:
    """Check that user and assistant alternate after an optional system turn.

    Raises:
        RowError: They do not, or no answer trains.
    """
    if [message.role for message in messages] == ["text"]:
        return
    turns = messages[1:] if messages[0].role == "system" else messages
    for i, message in enumerate(turns):
        expected = "assistant" if i % 2 else "user"
        if message.role != expected:
            raise RowError(
                tr(
                    "turn {turn}: {role}, expected {expected}",
                    turn=i + 1,
                    role=message.role,
                    expected=expected,
                )
            )
    if not any(message.role == "assistant" and message.train for message in turns):
        raise RowError(tr("no answer to learn: there is no assistant turn that trains"))


def train_on_last(messages: list[Message]) -> list[Message]:
    """Return a conversation of which only the last answer that trains is learned."""
    trained = [i for i, turn in enumerate(messages) if turn.role == "assistant" and turn.train]
    return [
        turn._replace(train=False) if i in trained[:-1] else turn for i, turn in enumerate(messages)
    ]
