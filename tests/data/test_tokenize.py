"""Several processes give the same tokens as one, and few rows are in memory at a time."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

import data.tokenize
from data.encoder import Encoder
from data.readers.source import Source, read
from data.records import content_hash, question_hash
from data.report.row_issue import BAD, CUT, TOO_LONG
from data.store import build_store
from data.tokenize import TokenizeRows, tokenize_chunks
from data.types import BadRow, DataError, Message, Row


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A file of good, bad, too long and cut rows."""
    path = tmp_path / "f.jsonl"
    fields = [
        {"prompt": f"Why {i}?", "response": "Because."}
        | ({"response": None} if i % 7 == 0 else {})
        | ({"response": "x " * 99} if i % 11 == 0 else {})
        | ({"prompt": f"{i} x" * 30} if i % 5 == 0 else {})
        for i in range(200)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in fields), "utf-8")
    return path


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 8 rows; only the first is tokenized without other processes."""
    monkeypatch.setattr(data.tokenize, "CHUNK_ROWS", 8)
    monkeypatch.setattr(data.tokenize, "SERIAL_CHUNKS", 1)


def test_several_processes_give_the_same_store_as_one(
    mixed: Path, tmp_path: Path, small_chunks: None, tokenizer: PreTrainedTokenizerFast
) -> None:
    stores = [
        build_store(
            mixed, tokenizer, max_length=96, on_bad_row="skip", processes=n, cache=tmp_path / str(n)
        )
        for n in (1, 2)
    ]
    one, two = stores
    assert one.table.to_list() == two.table.to_list()
    for kind in (BAD, TOO_LONG, CUT):
        assert list(one.report.issues(kind)) == list(two.report.issues(kind))
        lines = [issue.line for issue in one.report.issues(kind)]
        assert lines == sorted(lines)
        assert lines
    assert one.report.counts == two.report.counts


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_are_read_as_they_are_needed(
    processes: int, small_chunks: None, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows_read = 0

    def rows() -> Iterator[Row]:
        nonlocal rows_read
        for rows_read in range(1, 801):
            yield Row({"prompt": "Why?", "response": "Because."}, "f", rows_read)

    tokenize = TokenizeRows(Source("f"), Encoder(tokenizer, 96))
    for count, chunk in enumerate(tokenize_chunks(rows(), tokenize, processes), 1):
        assert chunk.files == {"f": 8}
        assert rows_read <= 8 * (count + 2 * processes + 2)
    assert count == 100


@pytest.mark.parametrize("processes", [1, 2])
def test_a_template_error_in_one_process_stops_all(
    processes: int, mixed: Path, small_chunks: None, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenize = TokenizeRows(Source(mixed), Encoder(tokenizer, 96))
    good = (row for row in read(mixed) if not isinstance(row, BadRow))
    with pytest.raises(DataError, match="never learn to stop"):
        list(tokenize_chunks(good, tokenize, processes))


def test_the_tokenize_function_and_its_result_can_be_pickled(
    mixed: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = list(read(mixed))
    tokenize = TokenizeRows(Source(mixed), Encoder(tokenizer, 96))
    copy = pickle.loads(pickle.dumps(tokenize))
    assert pickle.loads(pickle.dumps(copy(rows))).table.equals(tokenize(rows).table)


PAIRS = {
    "white space": ("Why  does\nit?", "Why does it?", True, True),
    "case": ("why does it?", "Why does it?", True, False),
    "a letter": ("Why does it", "Why does it?", False, False),
    "a space within": ("Why doesit?", "Why does it?", False, False),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equal_hashes_mean_equal_questions_and_equal_rows(name: str) -> None:
    *texts, question, content = PAIRS[name]
    rows = [[Message("user", text), Message("assistant", "So.")] for text in texts]
    assert (question_hash(rows[0]) == question_hash(rows[1])) == question
    assert (content_hash(rows[0]) == content_hash(rows[1])) == content
    other_turns = [Message("system", "Hm."), rows[1][0], Message("assistant", "No.")]
    assert (question_hash(rows[0]) == question_hash(other_turns)) == question


def test_roles_and_turn_boundaries_change_the_content_hash() -> None:
    rows = [
        [Message("user", "a b"), Message("assistant", "c")],
        [Message("user", "a"), Message("assistant", "b c")],
        [Message("system", "a b"), Message("user", "c")],
        [Message("user", "a"), Message("user", "b"), Message("assistant", "c")],
    ]
    assert len({content_hash(row) for row in rows}) == len(rows)
