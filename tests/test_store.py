"""A file becomes examples once; every row of it is accounted for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import PreTrainedTokenizerFast

import data.store
from data.formats import to_messages
from data.store import build, conversations, question_hash
from data.template import choose, encode
from data.types import IGNORE, DataError, Message, Row

MAX_LENGTH = 96
GOOD = {"prompt": "How warm must the bed be?", "response": "Sixty degrees."}
OTHER = {"question": "Почему?", "answer": "Стол был холодным."}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because.", "train": False},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": "That is all."},
    ]
}
LONG_PROMPT = {"prompt": " ".join(map(str, range(60))), "response": "Yes."}
LONG_ANSWER = {"prompt": "Count.", "response": " ".join(map(str, range(60)))}
BAD = [("{", "not JSON"), ('{"prompt": "?"}', "unknown keys"), ("[]", "not an object"),
       ('{"prompt": "?", "response": " "}', "response: blank")]  # fmt: skip


def write(path: Path, *rows: dict[str, Any] | str) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "f.jsonl", GOOD, "", OTHER, CHAT)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The first texts of the conversations that were tokenised, as they come."""
    seen = []

    def counting(messages: list[Message], *rest: Any) -> Any:
        seen.append(messages[0].content)
        return encode(messages, *rest)

    monkeypatch.setattr(data.store, "encode", counting)
    return seen


def test_a_stored_example_is_what_encode_gives(
    file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    write(file, GOOD, "", OTHER, CHAT, LONG_PROMPT)
    store = build(file, tokenizer, max_length=MAX_LENGTH)
    expected = [
        encode(to_messages(Row(fields, "", 0)), tokenizer, MAX_LENGTH)
        for fields in (GOOD, OTHER, CHAT, LONG_PROMPT)
    ]
    assert [store.example(row)[:2] for row in range(len(store))] == [e[:2] for e in expected]
    assert store.lengths.tolist() == [len(e.ids) for e in expected]
    assert store.targets.tolist() == [sum(x != IGNORE for x in e.labels) for e in expected]
    assert store.lines.tolist() == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("truncation", "cut_rows", "too_long"), [("middle", 1, [4]), ("drop", 0, [2, 4])]
)
def test_the_ledger_accounts_for_every_row(
    truncation: str, cut_rows: int, too_long: list[int], file: Path,
    tokenizer: PreTrainedTokenizerFast,
) -> None:  # fmt: skip
    write(file, GOOD, LONG_PROMPT, BAD[0][0], LONG_ANSWER, OTHER, BAD[1][0])
    store = build(file, tokenizer, max_length=MAX_LENGTH, truncation=truncation, on_bad_row="skip")
    ledger = store.ledger
    assert ledger.read == ledger.used + len(ledger.bad) + len(ledger.too_long) == 6
    assert ledger.used == len(store)
    assert [line.split(": ")[0] for line in ledger.too_long] == [f"{file}:{n}" for n in too_long]
    assert [line.split(": ")[0] for line in ledger.bad] == [f"{file}:{n}" for n in (3, 6)]
    whole = len(encode(to_messages(Row(LONG_PROMPT, "", 0)), tokenizer).ids)
    assert ledger.cut_rows == cut_rows
    assert ledger.cut_tokens == (whole - MAX_LENGTH) * cut_rows
    for words in ("6 rows read", f"{ledger.used} used", f"{len(too_long)} left out", "2 bad"):
        assert words in str(ledger)


def test_every_bad_row_is_listed_with_its_line_and_the_way_out(
    file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    write(file, GOOD, *(row for row, _ in BAD))
    for _ in range(2):  # from the store as well
        with pytest.raises(DataError, match=r"set data\.on_bad_row to skip") as error:
            build(file, tokenizer, max_length=MAX_LENGTH)
        assert f"{len(BAD)} of {len(BAD) + 1} rows of {file} are bad" in str(error.value)
        for line, (_, reason) in enumerate(BAD, 2):
            assert f"\n{file}:{line}: " in str(error.value)
            assert reason in str(error.value)
    store = build(file, tokenizer, max_length=MAX_LENGTH, on_bad_row="skip")
    assert (len(store), len(store.ledger.bad)) == (1, len(BAD))


def test_a_long_list_of_bad_rows_ends_with_how_many_more(
    file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    write(file, *["{"] * 50)
    with pytest.raises(DataError) as error:
        build(file, tokenizer, max_length=MAX_LENGTH)
    shown = str(error.value).count(f"{file}:")
    assert shown < 50
    assert f"… and {50 - shown} more" in str(error.value)


def test_a_second_build_tokenises_nothing(
    file: Path, tokenizer: PreTrainedTokenizerFast, encoded: list[str]
) -> None:
    first = build(file, tokenizer, max_length=MAX_LENGTH)
    assert len(encoded) == 3
    second = build(file, tokenizer, max_length=MAX_LENGTH)
    assert len(encoded) == 3
    assert second.ledger == first.ledger
    assert [second.example(i) for i in range(3)] == [first.example(i) for i in range(3)]


Change = Callable[[Path, PreTrainedTokenizerFast], object]
CHANGES: dict[str, tuple[Change, dict[str, Any]]] = {
    "a row": (lambda file, _: write(file, OTHER, GOOD, CHAT), {}),
    "the template": (lambda _, tokenizer: choose(tokenizer, "plain"), {}),
    "the vocabulary": (lambda _, tokenizer: tokenizer.add_tokens(["Sixty"]), {}),
    "max_length": (lambda *_: None, {"max_length": MAX_LENGTH + 1}),
    "truncation": (lambda *_: None, {"truncation": "drop"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_tokens_builds_anew(
    name: str, file: Path, tokenizer: PreTrainedTokenizerFast, encoded: list[str]
) -> None:
    settings: dict[str, Any] = {"max_length": MAX_LENGTH}
    build(file, tokenizer, **settings)
    change, changed = CHANGES[name]
    change(file, tokenizer)
    build(file, tokenizer, **(settings | changed))
    assert len(encoded) == 6


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_nothing(
    stop: type[BaseException], file: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupted(messages: list[Message], *rest: Any) -> Any:
        if messages[0].content == OTHER["question"]:
            raise stop
        return encode(messages, *rest)

    cache = tmp_path / "stores"
    with monkeypatch.context() as patch:
        patch.setattr(data.store, "encode", interrupted)
        with pytest.raises(stop):
            build(file, tokenizer, max_length=MAX_LENGTH, cache=cache)
    assert not list(cache.iterdir())
    assert len(build(file, tokenizer, max_length=MAX_LENGTH, cache=cache)) == 3


def test_a_store_lies_in_the_cache_of_datasets_unless_told_otherwise(
    file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    build(file, tokenizer, max_length=MAX_LENGTH)
    assert list(Path(datasets.config.HF_DATASETS_CACHE).rglob("ledger.json"))


@pytest.mark.parametrize(
    ("row", "settings", "reason"),
    [
        (GOOD, {"truncation": "left"}, "data.truncation is 'left'; there are middle, drop, error"),
        (GOOD, {"on_bad_row": "mend"}, "data.on_bad_row is 'mend'; there are error, skip"),
        (LONG_ANSWER, {}, "no row of .* is usable at data.max_length 96: 1 rows read, 0 used"),
        ("{", {"on_bad_row": "skip"}, "no row of .* is usable .*f.jsonl:1: not JSON"),
        (LONG_PROMPT, {"truncation": "error"}, "f.jsonl:1: .* data.truncation is error"),
    ],
)
def test_a_build_that_gives_nothing_to_learn_is_refused(
    row: dict[str, str] | str, settings: dict[str, str], reason: str, file: Path,
    tokenizer: PreTrainedTokenizerFast,
) -> None:  # fmt: skip
    write(file, row)
    with pytest.raises(DataError, match=reason):
        build(file, tokenizer, max_length=MAX_LENGTH, **settings)


@pytest.mark.parametrize("lines", [set(), {3}, {1, 4}, {2, 99}])
def test_conversations_are_those_of_the_lines_asked_for(lines: set[int], file: Path) -> None:
    whole = {1: GOOD, 3: OTHER, 4: CHAT}
    found = list(conversations(file, lines))
    assert [row.line for row, _ in found] == sorted(lines & whole.keys())
    assert all(messages == to_messages(Row(whole[row.line], "", 0)) for row, messages in found)


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        ("why does IT\twarp?", True),
        ("  Why\ndoes it  warp? ", True),
        ("Why does it warp", False),
        ("Why doesit warp?", False),
    ],
)
def test_questions_are_equal_up_to_case_and_white_space(other: str, equal: bool) -> None:
    hashes = [
        question_hash([Message("system", name), Message("user", text), Message("assistant", name)])
        for name, text in (("a", "Why does it warp?"), ("b", other))
    ]
    assert (hashes[0] == hashes[1]) == equal
