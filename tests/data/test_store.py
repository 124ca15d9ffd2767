"""A file is tokenized once, and the report accounts for every row."""

import json
import multiprocessing
import re
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import PreTrainedTokenizerFast

from data.encoder import Encoder
from data.formats.rows import to_messages
from data.report.row_issue import BAD, CUT, TOO_LONG
from data.store import build_store
from data.template import SAMPLE, choose_template, encode
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
BAD_ROWS = [("{", "not JSON"), ('{"prompt": "?"}', "there is no answer"), ("[]", "not an object"),
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
    """The first text of every conversation that is tokenized, in order."""
    texts = []
    encode_all = Encoder.encode_all

    def recording(self: Encoder, conversations: list[list[Message]]) -> Any:
        texts.extend(turns[0].content for turns in conversations if turns is not SAMPLE)
        return encode_all(self, conversations)

    monkeypatch.setattr(Encoder, "encode_all", recording)
    return texts


def test_a_stored_example_equals_the_one_of_encode(
    file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    write(file, GOOD, "", OTHER, CHAT, LONG_PROMPT)
    store = build_store(file, tokenizer, max_length=MAX_LENGTH)
    expected = [
        encode(to_messages(Row(fields, "", 0)), tokenizer, MAX_LENGTH)
        for fields in (GOOD, OTHER, CHAT, LONG_PROMPT)
    ]
    assert [store.example(row)[:2] for row in range(len(store))] == [e[:2] for e in expected]
    assert store.lengths.tolist() == [len(e.ids) for e in expected]
    assert store.label_counts.tolist() == [sum(x != IGNORE for x in e.labels) for e in expected]
    assert [store.location(row) for row in range(4)] == [f"{file}:{n}" for n in (1, 3, 4, 5)]


@pytest.mark.parametrize(
    ("truncation", "cut_rows", "too_long"), [("middle", 1, [4]), ("drop", 0, [2, 4])]
)
def test_the_report_accounts_for_every_row(
    truncation: str, cut_rows: int, too_long: list[int], file: Path,
    tokenizer: PreTrainedTokenizerFast,
) -> None:  # fmt: skip
    write(file, GOOD, LONG_PROMPT, BAD_ROWS[0][0], LONG_ANSWER, OTHER, BAD_ROWS[1][0])
    store = build_store(
        file, tokenizer, max_length=MAX_LENGTH, truncation=truncation, on_bad_row="skip"
    )
    report = store.report
    assert report.read == report.used + report.count(BAD) + report.count(TOO_LONG) == 6
    assert report.used == len(store)
    lines = {kind: [issue.line for issue in report.issues(kind)] for kind in (BAD, TOO_LONG, CUT)}
    assert lines == {BAD: [3, 6], TOO_LONG: too_long, CUT: [2] * cut_rows}
    whole = len(encode(to_messages(Row(LONG_PROMPT, "", 0)), tokenizer).ids)
    assert report.count(CUT) == cut_rows
    cut = (whole - MAX_LENGTH) * cut_rows
    assert sum(issue.tokens for issue in report.issues(CUT)) == report.tokens.get(CUT, 0) == cut
    for text in ("6 rows read", f"{report.used} used", f"{len(too_long)} left out", "2 bad"):
        assert text in str(report)


def test_every_bad_row_is_listed_with_its_line_and_what_to_do(
    file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    write(file, GOOD, *(row for row, _ in BAD_ROWS))
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataError, match="add --`on_bad_row` skip") as error:
            build_store(file, tokenizer, max_length=MAX_LENGTH)
        assert f"{len(BAD_ROWS)} of {len(BAD_ROWS) + 1} rows of {file} are bad" in str(error.value)
        assert "`columns`" not in str(error.value)
        for line, (_, reason) in enumerate(BAD_ROWS, 2):
            assert f"\n  {file}:{line}: " in str(error.value)
            assert reason in str(error.value)
    store = build_store(file, tokenizer, max_length=MAX_LENGTH, on_bad_row="skip")
    assert (len(store), store.report.count(BAD)) == (1, len(BAD_ROWS))


def test_a_long_list_of_bad_rows_ends_with_the_number_of_others(
    file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    write(file, GOOD, *["{"] * 500)
    with pytest.raises(DataError) as error:
        build_store(file, tokenizer, max_length=MAX_LENGTH)
    assert len(str(error.value).splitlines()) == 5
    assert "… and in line 3, 4, 5, 6, 7, 8, 9, 10 and 491 more" in str(error.value)


def test_a_second_build_tokenizes_nothing(
    file: Path, tokenizer: PreTrainedTokenizerFast, encoded: list[str]
) -> None:
    first = build_store(file, tokenizer, max_length=MAX_LENGTH)
    assert len(encoded) == 3
    second = build_store(file, tokenizer, max_length=MAX_LENGTH)
    assert len(encoded) == 3
    assert str(second.report) == str(first.report)
    assert [second.example(i) for i in range(3)] == [first.example(i) for i in range(3)]


Change = Callable[[Path, PreTrainedTokenizerFast], object]
CHANGES: dict[str, tuple[Change, dict[str, Any]]] = {
    "a row": (lambda file, _: write(file, OTHER, GOOD, CHAT), {}),
    "the template": (lambda _, tokenizer: choose_template(tokenizer, "plain"), {}),
    "the vocabulary": (lambda _, tokenizer: tokenizer.add_tokens(["Sixty"]), {}),
    "max_length": (lambda *_: None, {"max_length": MAX_LENGTH + 1}),
    "truncation": (lambda *_: None, {"truncation": "drop"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_anything_that_changes_the_tokens_rebuilds_the_store(
    name: str, file: Path, tokenizer: PreTrainedTokenizerFast, encoded: list[str]
) -> None:
    settings: dict[str, Any] = {"max_length": MAX_LENGTH}
    build_store(file, tokenizer, **settings)
    change, changed = CHANGES[name]
    change(file, tokenizer)
    build_store(file, tokenizer, **(settings | changed))
    assert len(encoded) == 6


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_nothing(
    stop: type[BaseException], file: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupted(*_: object) -> None:
        raise stop

    cache = tmp_path / "stores"
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode_all", interrupted)
        with pytest.raises(stop):
            build_store(file, tokenizer, max_length=MAX_LENGTH, cache=cache)
    assert not [path for path in cache.iterdir() if path.is_dir()]
    assert len(build_store(file, tokenizer, max_length=MAX_LENGTH, cache=cache)) == 3


def test_a_store_is_cached_next_to_those_of_datasets_by_default(
    file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    build_store(file, tokenizer, max_length=MAX_LENGTH)
    assert list(Path(datasets.config.HF_DATASETS_CACHE).rglob("row_report.json"))


@pytest.mark.parametrize(
    ("row", "settings", "reason"),
    [
        (GOOD, {"truncation": "left"}, "`truncation` is 'left': choose middle, drop or error"),
        (GOOD, {"on_bad_row": "fix"}, "`on_bad_row` is 'fix': choose error or skip"),
        (
            LONG_ANSWER,
            {},
            "1 of 1 rows of .* are too long for `max_length` 96:(.|\\n)*\nRaise `max_length`.$",
        ),
        ("{", {"on_bad_row": "skip"}, "1 of 1 rows of .* are bad:(.|\\n)*f.jsonl:1: not JSON.*$"),
        (
            LONG_PROMPT,
            {"truncation": "error"},
            "1 of 1 rows of .* are too long for `max_length` 96:(.|\\n)*f.jsonl:1: too long by .*\n"
            "Raise `max_length`, or set `truncation`",
        ),
    ],
)
def test_a_build_without_usable_rows_is_refused(
    row: dict[str, str] | str, settings: dict[str, str], reason: str, file: Path,
    tokenizer: PreTrainedTokenizerFast,
) -> None:  # fmt: skip
    write(file, row)
    with pytest.raises(DataError, match=reason):
        build_store(file, tokenizer, max_length=MAX_LENGTH, **settings)


def test_a_store_returns_conversations_with_their_locations(
    file: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    store = build_store(file, tokenizer, max_length=MAX_LENGTH)
    for row, (line, fields) in enumerate({1: GOOD, 3: OTHER, 4: CHAT}.items()):
        assert store.location(row) == f"{file}:{line}"
        assert store.messages(row) == to_messages(Row(fields, "", 0))


def test_a_read_error_is_not_cached(
    file: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise DataError(f"{file}: Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("data.readers.source.read_jsonl", broken)
        with pytest.raises(DataError, match="Input/output error"):
            build_store(file, tokenizer, max_length=MAX_LENGTH)
    assert len(build_store(file, tokenizer, max_length=MAX_LENGTH)) == 3


def test_of_concurrent_processes_one_tokenizes_and_the_others_wait(
    file: Path, tokenizer: PreTrainedTokenizerFast, encoded: list[str], tmp_path: Path
) -> None:
    encode_all = Encoder.encode_all

    def slow(self: Encoder, conversations: list[list[Message]]) -> Any:
        time.sleep(0.3)
        return encode_all(self, conversations)

    def rank(answer: Connection) -> None:
        store = build_store(file, tokenizer, max_length=MAX_LENGTH, cache=tmp_path, processes=1)
        answer.send((len(encoded), store.lengths.tolist()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "encode_all", slow)
        fork = multiprocessing.get_context("fork")
        pipes = [fork.Pipe(duplex=False) for _ in range(3)]
        ranks = [fork.Process(target=rank, args=[sender]) for _, sender in pipes]
        for process in ranks:
            process.start()
        counts, lengths = zip(*(receiver.recv() for receiver, _ in pipes), strict=True)
        for process in ranks:
            process.join()
    assert sorted(counts) == [0, 0, 3]
    assert len(lengths[0]) == 3
    assert lengths[0] == lengths[1] == lengths[2]


@pytest.mark.parametrize("first", ["en", "ru"])
def test_a_store_speaks_the_language_of_who_asks_for_it(
    first: str, file: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reasons are stored, so a store of another language is built again, with equal rows."""
    unknown = write(file.with_name("unknown.jsonl"), {"promt": "?", "response": "!"})
    write(file, GOOD, LONG_PROMPT, '{"promt": "?", "response": "!"}', BAD_ROWS[3][0], OTHER)
    shown = {
        "en": ("unknown keys", "response: blank", "tokens cut from the middle of the prompt"),
        "ru": ("неизвестные ключи", "response: пусто", "обрезано токенов в середине запроса"),
    }
    stores = {}
    for language in (first, *(shown.keys() - {first})):
        monkeypatch.setenv("LANGUAGE", language)
        stores[language] = build_store(
            file, tokenizer, max_length=MAX_LENGTH, on_bad_row="skip", truncation="middle"
        )
        report = stores[language].report
        text = report.listing(BAD) + report.listing(CUT)
        assert [words in text for words in shown[language]] == [True, True, True]
        with pytest.raises(DataError, match=re.escape("'{question: promt, answer: response}'")):
            build_store(unknown, tokenizer, max_length=MAX_LENGTH)
    assert stores["en"].table["ids"][:] == stores["ru"].table["ids"][:]
