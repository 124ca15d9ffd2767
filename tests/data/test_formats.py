"""Every row format gives messages, and the error for a damaged row names the field."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from data.formats.names import check_columns
from data.formats.rows import ASKED, FORMATS, SAID, read_row, to_messages
from data.formats.turns import FROM_JSON
from data.types import DataError, Message, Row, RowError

MISSING = object()
DAMAGES = {"missing": MISSING, "null": None, "blank": " \n", "a number": 7}
ANSWERS = {"response", "answer", "completion", "output"}
SHAREGPT = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def messages_of(fields: dict[str, Any]) -> list[Message]:
    return to_messages(Row(fields, "f.jsonl", 1))


def chat(*roles: str, **last: Any) -> dict[str, Any]:
    turns: list[dict[str, Any]] = [{"role": role, "content": "?"} for role in roles]
    turns[-1] |= last
    return {"messages": turns}


def paths(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the path to everything inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*path, key))


def dotted(path: tuple) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)[1:]


def damaged(fields: dict[str, Any], path: tuple, value: object) -> dict[str, Any]:
    fields = copy.deepcopy(fields)
    parent: Any = fields
    for key in path[:-1]:
        parent = parent[key]
    if value is MISSING:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return fields


CASES = [
    pytest.param(name, path, damage, id=f"{name}: {dotted(path)} {damage}")
    for name, format_ in FORMATS.items()
    for path in paths(format_.sample)
    for damage in DAMAGES
    if not (isinstance(path[-1], int) and damage == "missing")
    # A number as an answer is text.
    and not (damage == "a number" and (path[-1] in ANSWERS or path[-3:-1] == (name, 1)))
]
TURNS = [name for name, format_ in FORMATS.items() if name != "text"]


@pytest.mark.parametrize("name", TURNS)
def test_a_sample_gives_a_question_and_its_answer(name: str) -> None:
    assert messages_of(FORMATS[name].sample) == [
        Message("user", "Hi?"),
        Message("assistant", "Hello."),
    ]


@pytest.mark.parametrize(("name", "path", "damage"), CASES)
def test_the_error_names_the_damaged_field(name: str, path: tuple, damage: str) -> None:
    with pytest.raises(RowError) as error:
        messages_of(damaged(FORMATS[name].sample, path, DAMAGES[damage]))
    # What a missing key is called in a file is unknown.
    known = path[:-1] if damage == "missing" and path[-1] in ("from", "value") else path
    assert dotted(known) in str(error.value)


def test_the_error_for_unknown_keys_lists_the_known_ones() -> None:
    with pytest.raises(RowError) as error:
        messages_of({"text": "Hi?", "label": "Hello."})
    assert str(error.value).startswith("text, label: unknown keys")
    assert all("+".join(format_.keys) in str(error.value) for format_ in FORMATS.values())


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        (("assistant",), "turn 1: assistant, expected user"),
        (("system", "assistant"), "turn 1: assistant, expected user"),
        (("system", "system"), "turn 1: system, expected user"),
        (("user", "user", "assistant"), "turn 2: user, expected assistant"),
        (("user", "system", "assistant"), "turn 2: system, expected assistant"),
        (("user", "assistant", "assistant"), "turn 3: assistant, expected user"),
        (("user",), "no answer to learn"),
        (("system",), "no answer to learn"),
        (("system", "user"), "no answer to learn"),
        (("robot",), r"messages\[0\].role: 'robot' is not one of assistant, system, user"),
    ],
)
def test_turns_that_do_not_alternate_are_refused(roles: tuple[str, ...], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        messages_of(chat(*roles))


@pytest.mark.parametrize("train", [True, False])
def test_a_turn_keeps_its_train_flag(train: bool) -> None:
    fields = chat("system", "user", "assistant", "user", "assistant", train=train)
    assert [message.train for message in messages_of(fields)] == [True] * 4 + [train]


def test_a_conversation_without_an_answer_that_trains_is_refused() -> None:
    with pytest.raises(RowError, match="no answer to learn"):
        messages_of(chat("user", "assistant", train=False))


@pytest.mark.parametrize("train", [0, "false", ["x"]])
def test_train_must_be_true_or_false(train: object) -> None:
    with pytest.raises(RowError, match=r"messages\[1\].train: .* neither true nor false"):
        messages_of(chat("user", "assistant", train=train))


@pytest.mark.parametrize("user", [name for name, role in SHAREGPT.items() if role == "user"])
@pytest.mark.parametrize("model", [name for name, role in SHAREGPT.items() if role != "user"])
def test_sharegpt_speakers_become_roles(user: str, model: str) -> None:
    turns = [{"from": name, "value": name} for name in ("system", user, model)]
    assert messages_of({"conversations": turns}) == [
        Message("system", "system"),
        Message("user", user),
        Message("assistant", model),
    ]


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize(("system", "roles"), [("Be brief.", ["system"]), ("", []), (None, [])])
def test_a_system_field_becomes_the_first_turn(
    name: str, system: str | None, roles: list[str]
) -> None:
    messages = messages_of(FORMATS[name].sample | {"system": system})
    assert [message.role for message in messages] == [*roles, "user", "assistant"]
    assert messages[0].content == (system or "Hi?")


def test_an_instruction_and_its_input_form_the_question() -> None:
    fields = {"instruction": "Translate.", "input": "Да", "output": "Yes"}
    assert messages_of(fields)[0].content == "Translate.\n\nДа"


NOT_TEXT = {"NUL": "a\0b", "half a surrogate pair": "a\ud800"}


@pytest.mark.parametrize("kind", NOT_TEXT)
def test_the_error_names_a_field_that_is_not_valid_text(kind: str) -> None:
    with pytest.raises(RowError, match=f"response: contains {kind}, which is not text"):
        to_messages(Row({"prompt": "a", "response": NOT_TEXT[kind]}, "f", 1))


@pytest.mark.parametrize("role", [["user"], {}, 1, None])
def test_a_role_that_is_not_text_is_refused(role: object) -> None:
    with pytest.raises(RowError, match=r"messages\[0\].role"):
        to_messages(Row({"messages": [{"role": role, "content": "x"}]}, "f", 1))


COLUMNS = {
    "a pair": ({"prompt": "вопрос", "response": "ответ"}, {"вопрос": "Hi?", "ответ": "Hello."}),
    "turns": (
        {"messages": "chat"},
        {"chat": FORMATS["messages"].sample["messages"], "prompt": 1, "response": 2},
    ),
    "swapped": (
        {"prompt": "answer", "response": "question"},
        {"answer": "Hi?", "question": "Hello."},
    ),
    "an instruction": ({"instruction": "task", "output": "out"}, {"task": "Hi?", "out": "Hello."}),
    "beside a known pair": (
        {"question": "q", "answer": "a"},
        {"prompt": "No", "response": "No", "q": "Hi?", "a": "Hello."},
    ),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_map_the_names_in_the_file_to_fields(case: str) -> None:
    columns, fields = COLUMNS[case]
    check_columns(columns)
    assert to_messages(Row(fields, "f", 1), columns) == messages_of(FORMATS["messages"].sample)


def test_fields_that_are_not_renamed_keep_their_meaning() -> None:
    fields = {"task": "Translate.", "input": "Да", "out": "Yes", "system": "Be brief."}
    messages = to_messages(Row(fields, "f", 1), {"instruction": "task", "output": "out"})
    assert [turn.content for turn in messages] == ["Be brief.", "Translate.\n\nДа", "Yes"]


def test_the_error_for_a_missing_column_lists_those_of_the_row() -> None:
    with pytest.raises(RowError, match="b: missing column; the row has a, c"):
        to_messages(Row({"a": "1", "c": "2"}, "f", 1), {"prompt": "a", "response": "b"})


def test_columns_with_an_unknown_field_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"`columns` names unknown fields: ask\..* the fields are prompt, question"
    ):
        check_columns({"prompt": "a", "ask": "b"})


TURNS_AS_LISTS = {
    "messages": FORMATS["messages"].sample,
    "conversations": FORMATS["conversations"].sample,
    "history in pairs": {"prompt": "b", "response": "c", "history": [["Hi?", "Hello."]]},
    "history in turns": {"prompt": "b", "response": "c", "history": [ASKED, SAID]},
}


@pytest.mark.parametrize("name", TURNS_AS_LISTS)
def test_turns_that_a_table_has_as_json_are_read_as_the_list_and_counted(name: str) -> None:
    fields = TURNS_AS_LISTS[name]
    as_text = {
        key: json.dumps(value, indent=1) if isinstance(value, list) else value
        for key, value in fields.items()
    }
    read = read_row(Row(as_text, "f.csv", 1))
    assert read.messages == messages_of(fields)
    assert +read.changes == {FROM_JSON: 1}
