"""Files with one fault each: one run names every fault and loses no clean row."""

import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
import pytest
from transformers import PreTrainedTokenizerFast

from data.readers.source import Source
from data.report.row_issue import BAD
from data.store import build_store
from data.types import DataError

CLEAN = {"prompt": "Почему?", "response": "Стол был холодным."}
LINE = json.dumps(CLEAN, ensure_ascii=False)
HEADER = "prompt,response\nWhy?,Because.\n"


class BadFile(NamedTuple):
    """A file with a fault: content, line of the fault, reported reason, number of clean rows."""

    content: bytes
    line: int | None
    reason: str
    clean: int = 2
    suffix: str = ".jsonl"


def lines(fault: str, reason: str) -> BadFile:
    """Return a JSONL file with a clean row before and after the fault."""
    return BadFile(f"{LINE}\n{fault}\n{LINE}\n".encode(), 2, reason)


def row(reason: str, **fields: Any) -> BadFile:
    return lines(json.dumps(fields), reason)


def chat(reason: str, *turns: Any) -> BadFile:
    return row(reason, messages=[t if isinstance(t, dict) else turn(*t) for t in turns])


def turn(role: Any, content: Any = "Hm.", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def table(rows: str, line: int, reason: str, suffix: str = ".csv") -> BadFile:
    """Return a CSV file with a clean row before and after the fault."""
    content = HEADER + rows + "Why?,Because.\n"
    if suffix == ".tsv":
        content = content.replace(",", "\t")
    return BadFile(content.encode(), line, reason, suffix=suffix)


def parquet(*rows: dict[str, Any]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    return sink.getvalue().to_pybytes()


def listed(*elements: str) -> bytes:
    return ("[\n" + ",\n".join(elements) + "\n]").encode()


ASK, SAY = ("user",), ("assistant",)
ROWS = {
    "cut short": lines('{"prompt": "a", "respo', "not JSON: Unterminated string"),
    "names without quotes": lines("{prompt: 1}", "not JSON: Expecting property name"),
    "single quotes": lines("{'prompt': 'a'}", "not JSON: Expecting property name"),
    "comma at the end": lines('{"prompt": "a",}', "not JSON: "),
    "two objects": lines("{} {}", "not JSON: Extra data"),
    "nested without end": lines("[" * 100_000, "not JSON: nested too deeply"),
    "huge number": lines("2" * 5000, "not JSON: Exceeds the limit"),
    "tab in a text": lines('{"prompt": "a\tb"}', "not JSON: Invalid control character"),
    "raw NUL": lines('{"prompt": "a\0b"}', "not JSON: Invalid control character"),
    "list": lines('["a", "b"]', "not an object but a list"),
    "text": lines('"a"', "not an object but text"),
    "number": lines("7", "not an object but a number"),
    "null": lines("null", "not an object but null"),
    "key twice": lines(
        '{"prompt": "a", "prompt": "b", "response": "c"}', "prompt: this key appears twice"
    ),
    "key twice in a turn": lines(
        '{"messages": [{"role": "user", "role": "user", "content": "a"}]}',
        "role: this key appears twice",
    ),
    "unknown keys": row("text, label: unknown keys; known are", text="a", label="b"),
    "half a pair as key": row("\\ud83d: unknown keys", **{"\ud83d": "a"}),
    "escapes as key": row("\\x1b[2J\\n: unknown keys", **{"\x1b[2J\n": "a"}),
    "endless key": row("x" * 40 + "…: unknown keys", **{"x" * 100_000: "a"}),
    "half a pair twice": lines('{"\\ud83d": 1, "\\ud83d": 2}', "\\ud83d: this key appears"),
    "no answer": row("prompt: there is no answer", prompt="a"),
    "null answer": row("response: null", prompt="a", response=None),
    "blank answer": row("response: blank", prompt="a", response=" \n\t "),
    "invisible answer": row("response: blank", prompt="a", response="\u200b \ufeff"),
    "list as answer": row("response: not text but a list", prompt="a", response=["b"]),
    "no number as answer": row("response: null", prompt="a", response=float("nan")),
    "blank question": row("question: blank", question="", answer="b"),
    "null instruction": row("instruction: null", instruction=None, output="b"),
    "list as input": row("input: not text", instruction="a", input=["x"], output="b"),
    "number as system": row("system: not text", prompt="a", completion="b", system=5),
    "half a surrogate pair": row(
        "response: contains half a surrogate", prompt="a", response="\ud83d"
    ),
    "NUL": row("prompt: contains NUL", prompt="a\0b", response="c"),
    "unknown role": chat("messages[1].role: 'robot' is not one of", ASK, ("robot",)),
    "role that is no text": chat("messages[0].role: 1 is not one of", (1,), SAY),
    "answer first": chat("turn 1: assistant, expected user", SAY),
    "two questions": chat("turn 2: user, expected assistant", ASK, ASK, SAY),
    "two answers": chat("turn 3: assistant, expected user", ASK, SAY, SAY),
    "late system": chat("turn 3: system, expected user", ASK, SAY, ("system",), ASK, SAY),
    "question alone": chat("no answer to learn", ASK),
    "nothing trains": chat("no answer to learn", ASK, turn("assistant", train=False)),
    "train is a text": chat("messages[1].train: 'no' is neither", ASK, turn(*SAY, train="no")),
    "no content": chat("messages[1].content: missing", ASK, {"role": "assistant"}),
    "null content": chat("messages[1].content: null", ASK, ("assistant", None)),
    "no turns": row("messages: not a list of turns", messages=[]),
    "messages in a text": row("messages: not a list of turns", messages="user: a"),
    "messages in Python's notation": row(
        "messages: not a list of turns, and not the JSON of one", messages="[{'role': 'user'}]"
    ),
    "messages as JSON with a key twice": row(
        "messages: role: this key appears twice", messages='[{"role": "user", "role": "user"}]'
    ),
    "messages as JSON, but no turns": row(
        "messages[0]: not an object but a number", messages="[1]"
    ),
    "turn in a text": row("messages[0]: not an object but text", messages=["a", "b"]),
    "unknown speaker": row(
        "conversations[0].from: 'tool' is not one of",
        conversations=[{"from": "tool", "value": "a"}],
    ),
    "field too few": table("Why?\n", 3, "1 field, but the header has 2"),
    "field too many": table("Why?,Well,yes\n", 3, "3 fields, but the header has 2"),
    "behind a long row": table('"a\nb\n","c\n"\nWhy?\n', 7, "1 field, but the header has 2"),
    "quote inside": table('"a"b,c\n', 3, "not CSV: "),
    "empty field": table("Why?,\n", 3, "response: blank"),
    "tab too many": table("a,b,c\n", 3, "3 fields, but the header has 2", ".tsv"),
    "number in a list": BadFile(
        listed(LINE, "7", LINE), 3, "not an object but a number", 2, ".json"
    ),
    "key twice in a list": BadFile(
        listed(LINE, '{"prompt": "a", "prompt": "b"}', LINE), 3, "prompt: this key", 2, ".json"
    ),
    "null in Parquet": BadFile(
        parquet(CLEAN, CLEAN | {"response": None}, CLEAN), 2, "response: null", 2, ".parquet"
    ),
    "in gzip": BadFile(
        gzip.compress(f"{LINE}\n{{\n{LINE}".encode()), 2, "not JSON", 2, ".jsonl.gz"
    ),
}
ROWS["behind a long row"] = ROWS["behind a long row"]._replace(clean=3)
FILES = {
    "bad byte": BadFile(f"{LINE}\n".encode() * 2 + b'{"prompt": "\xff"}\n', 3, "not UTF-8", 0),
    "CP1251": BadFile(LINE.encode("cp1251"), 1, "not UTF-8 but likely cp1251 ({", 0),
    "KOI8-R": BadFile(LINE.encode("koi8-r"), 1, "not UTF-8 but likely koi8_r ({", 0),
    "UTF-16 without a mark": BadFile(
        '{"prompt": "a"}'.encode("utf-16-be"),
        None,
        "contains NUL bytes, so it is likely utf-16-be",
        0,
    ),
    "damaged letter": BadFile(
        LINE.encode().replace(b"\xd0", b"\xff", 1),
        1,
        "not UTF-8: a damaged character in column 13",
        0,
    ),
    "cut in a letter": BadFile(
        LINE.encode()[:12] + b"\xd0", 1, "not UTF-8: the file ends inside a character", 0
    ),
    "empty": BadFile(b"", None, "holds no rows", 0),
    "blank": BadFile(b"\n \r\n", None, "holds no rows", 0),
    "header alone": BadFile(b"prompt,response\n", None, "holds no rows", 0, ".csv"),
    "quote in the header": BadFile(b'"a"b,c\n1,2\n', 1, "not CSV from here on", 0, ".csv"),
    "column twice": BadFile(b"a,b,a\n1,2,3\n", 1, "column 'a' appears twice", 0, ".csv"),
    "quote without end": BadFile(
        f'{HEADER}"a,b\nc,d\n'.encode(), 3, "not CSV from here on", 1, ".csv"
    ),
    "text": BadFile(b"prompt: a", None, "holds neither a list nor an object", 0, ".json"),
    "comma missing": BadFile(
        f"[{LINE}\n{LINE}]".encode(), 2, "not JSON: Expecting ','", 1, ".json"
    ),
    "list without end": BadFile(f"[\n{LINE},\n".encode(), 3, "not JSON: Expecting", 1, ".json"),
    "something behind": BadFile(f"[{LINE}]\n]".encode(), 2, "not JSON: Extra data", 1, ".json"),
    "not gzip": BadFile(LINE.encode(), None, "not a complete gzip file", 0, ".jsonl.gz"),
    "gzip cut short": BadFile(
        gzip.compress(LINE.encode())[:-9], None, "not a complete gzip file", 0, ".jsonl.gz"
    ),
    "not Parquet": BadFile(LINE.encode(), None, "not Parquet", 0, ".parquet"),
}


def write_files(folder: Path, files: dict[str, BadFile]) -> dict[str, Path]:
    """Write the files, and one without a fault."""
    (folder / "clean.jsonl").write_text(f"{LINE}\n", "utf-8")
    paths = {name: folder / f"{name}{file.suffix}" for name, file in files.items()}
    for name, path in paths.items():
        path.write_bytes(files[name].content)
    return paths


def test_one_run_names_every_fault_with_file_line_and_reason(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    files = ROWS | FILES
    paths = write_files(tmp_path, files)
    with pytest.raises(DataError) as error:
        build_store(tmp_path, tokenizer, max_length=512)
    message = str(error.value)
    for name, file in files.items():
        where = str(paths[name]) + (f":{file.line}:" if file.line else "")
        found = [line.strip() for line in message.splitlines() if line.strip().startswith(where)]
        assert found, name
        assert file.reason in found[0], name
    assert f"{len(ROWS)} of " in message
    assert len(files) > 60
    assert max(map(len, message.splitlines())) < 1000


def test_skipping_bad_rows_keeps_all_clean_ones(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    write_files(tmp_path, ROWS)
    store = build_store(tmp_path, tokenizer, max_length=512, on_bad_row="skip")
    clean = 1 + sum(file.clean for file in ROWS.values())
    assert store.report.count(BAD) == len(ROWS)
    assert (len(store), store.report.read) == (clean, clean + len(ROWS))


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_to_its_end_is_never_skipped(
    name: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write_files(tmp_path, {name: FILES[name]})[name]
    for _ in range(2):
        with pytest.raises(DataError, match=path.name):
            build_store(tmp_path, tokenizer, max_length=512, on_bad_row="skip")
    path.unlink()
    assert len(build_store(tmp_path, tokenizer, max_length=512)) == 1


@pytest.mark.parametrize("name", FILES)
def test_rows_before_the_break_are_read(name: str, tmp_path: Path) -> None:
    path = write_files(tmp_path, {name: FILES[name]})[name]
    found: list[object] = []
    with pytest.raises(DataError):
        found.extend(Source(path).read(str(path)))  # keeps what came before the error
    assert len(found) == FILES[name].clean
