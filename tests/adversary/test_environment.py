"""C15: clocks, two runs on one cache, few descriptors, no HOME, gz bombs, files that change."""

import ast
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from data import store as stores
from data.readers import text_file
from data.readers.source import Source, read
from data.readers.text_file import MAX_ROW
from data.store import build_store
from data.types import BadRow, DataError, Row
from lit.distributed.ranks import Ranks
from lora.config import ConfigError

ROOT = Path(__file__).parents[2]
GOOD = json.dumps({"prompt": "Why?", "response": "So."}) + "\n"
ROWS = "".join(
    json.dumps({"prompt": f"Почему {i}?", "response": f"Потому {i}."}, ensure_ascii=False) + "\n"
    for i in range(20)
)


def test_no_clock_that_can_jump_measures_a_duration() -> None:
    names = {
        f"{path.name}: {ast.unparse(node)}"
        for package in ("data", "lit", "lora")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node) in ("time.time", "datetime.now", "datetime.utcnow", "time.localtime")
    }
    # OpenAI's interface gives the date of an answer. Searches on several machines see from the time
    # of day whether another is alive. The processes of a run, also those that start later, agree on
    # the times of a busy CPU; after a jump they are measured again.
    files = ("app", "bodies", "kept_times", "ledger", "owner")
    assert names == {f"{x}.py: time.time" for x in files}


SMALL = 1 << 12
"""The most characters of a row in these tests, in place of ``MAX_ROW``."""


@pytest.fixture
def small_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows above 4,096 characters are too long."""
    from data.readers import csv_file, json_file

    for module in (text_file, json_file, csv_file):
        monkeypatch.setattr(module, "MAX_ROW", SMALL)


LONG = json.dumps({"prompt": "x" * 3 * SMALL, "response": "y"}) + "\n"
LINES: dict[str, tuple[str, str]] = {
    "C15: a long line": ("rows.jsonl", GOOD + LONG + GOOD),
    "C15: a long line at the end, without newline": ("rows.jsonl", GOOD + GOOD + LONG[:-1]),
    "C15: long white space": ("rows.jsonl", GOOD + " " * 5 * SMALL + "\n" + GOOD),
    "C15: a row of the largest size": (
        "rows.jsonl",
        GOOD + json.dumps({"prompt": "x", "response": "y" * (SMALL - 40)}) + "\n",
    ),
}


@pytest.mark.parametrize("attack", LINES)
def test_a_long_line_is_one_bad_row(attack: str, tmp_path: Path, small_rows: None) -> None:
    name, text = LINES[attack]
    (tmp_path / name).write_text(text)
    rows = list(read(tmp_path / name))
    assert sum(isinstance(row, Row) for row in rows) == 2
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert len(bad) == (attack != "C15: a row of the largest size")
    assert all("longer than" in row.reason for row in bad)
    assert [row.line for row in rows] == list(range(1, len(rows) + 1))


BROKEN: dict[str, tuple[str, str]] = {
    "C15: a long field": ("rows.csv", f"prompt,response\nq,{'x' * 3 * SMALL}\n"),
    "C15: a long header": ("rows.csv", "x" * 3 * SMALL + ",b\n"),
    "C15: a long field of many lines": ("rows.csv", 'prompt,response\nq,"' + "x\n" * 9_000_000),
    "C15: a long value in a list": ("rows.json", f"[{GOOD},{LONG * 600}"),
}


@pytest.mark.parametrize("attack", BROKEN)
def test_a_long_row_that_hides_the_next_one_is_an_error(
    attack: str, tmp_path: Path, small_rows: None
) -> None:
    name, text = BROKEN[attack]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        list(read(tmp_path / name))
    assert len(str(caught.value)) < 300


def test_a_gz_bomb_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", 1) as file:
        for _ in range(6):
            file.write(b"a" * MAX_ROW)
    code = f"""
import resource
from data.readers.source import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(row,) = read({str(path)!r})
print(row.reason, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    reason, _, megabytes = done.stdout.strip().rpartition(" ")
    assert reason == "longer than 16,777,216 characters", done.stderr
    assert int(megabytes) < 128


CHANGES: dict[str, Callable[[Path], object]] = {
    "C15: a file that grows": lambda path: path.open("a").write(GOOD),
    "C15: a file that shrinks": lambda path: os.truncate(path, len(GOOD) * 3),
    "C15: a file that is replaced": lambda path: os.replace(path.with_suffix(".other"), path),
    "C15: a file that keeps its size and time": lambda path: (
        times := path.stat(),
        path.write_text(path.read_text("utf-8").replace("0", "1"), "utf-8"),
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns)),
    ),
}


@pytest.mark.parametrize("attack", CHANGES)
def test_a_file_that_changes_while_it_is_read_is_no_data(
    attack: str,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, cache = tmp_path / "rows.jsonl", tmp_path / "cache"
    path.write_text(ROWS, "utf-8")
    path.with_suffix(".other").write_text(ROWS, "utf-8")
    original = stores.tokenize_chunks

    def slow(rows: Iterator, *rest: object) -> Iterator:
        time.sleep(0.02)  # the clock of a file system ticks every few milliseconds
        CHANGES[attack](path)
        yield from original(rows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(stores, "tokenize_chunks", slow)
    with pytest.raises(DataError, match="changed while it was read"):
        build_store(path, tokenizer, max_length=128, cache=cache)
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]


def test_a_folder_that_gets_a_file_while_it_is_read_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(GOOD)
    source = Source(tmp_path)
    before = source.states()
    (tmp_path / "b.jsonl").write_text(GOOD)
    with pytest.raises(DataError, match="files were added or removed"):
        source.check_unchanged(before)


BUILD = """
import sys, time
from transformers import PreTrainedTokenizerFast
from data import store
original = store.tokenize_chunks
def slow(*arguments):
    for chunk in original(*arguments):
        print("tokenizing", flush=True)
        time.sleep(float(sys.argv[4]))
        yield chunk
store.tokenize_chunks = slow
tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1])
built = store.build_store(sys.argv[2], tokenizer, max_length=128, cache=store.Path(sys.argv[3]))
print(len(built), sum(built.lengths), flush=True)
"""


def build(tokenizer_file: Path, path: Path, cache: Path, seconds: float) -> subprocess.Popen:
    arguments = [str(tokenizer_file), str(path), str(cache), str(seconds)]
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, *arguments], stdout=subprocess.PIPE, text=True
    )


def test_a_cache_killed_in_its_making_is_made_again_and_two_runs_share_it(
    tokenizer_file: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path, cache = tmp_path / "rows.jsonl", tmp_path / "cache"
    path.write_text(ROWS, "utf-8")
    killed = build(tokenizer_file, path, cache, 60)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "tokenizing\n"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list(cache.glob("*.new"))
    both = [build(tokenizer_file, path, cache, 0.3) for _ in range(2)]
    printed = [process.communicate(timeout=60)[0].split("\n") for process in both]
    alone = build_store(path, tokenizer, max_length=128, cache=tmp_path / "other")
    assert {lines[-2] for lines in printed} == {f"{len(alone)} {alone.lengths.sum()}"}
    assert sum(lines.count("tokenizing") for lines in printed) == 1
    assert not list(cache.glob("*.new"))


def test_a_cache_that_cannot_be_made_is_named(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "rows.jsonl").write_text(GOOD)
    with pytest.raises(DataError, match="HF_DATASETS_CACHE"):
        build_store(
            tmp_path / "rows.jsonl", tokenizer, max_length=64, cache=tmp_path / "file" / "cache"
        )


def test_a_name_in_another_encoding_is_read(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xf0\xff.jsonl"))
    path.write_text(ROWS, "utf-8")
    assert len(build_store(path, tokenizer, max_length=128, cache=tmp_path / "cache")) == 20


ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "C15: no HOME, no TERM, 32 descriptors, LANG=C": {
        "HOME": None,
        "TERM": None,
        "DESCRIPTORS": "32",
        "LC_ALL": "C",
    },
    "C15: ASCII, an unknown terminal": {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "TERM": "no-such",
    },
}


@pytest.mark.parametrize("attack", ENVIRONMENTS)
def test_a_command_works_in_a_poor_environment(
    attack: str, tiny_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "русская папка"
    folder.mkdir()
    (folder / "строки.jsonl").write_text(ROWS, "utf-8")
    environment = dict(os.environ) | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    environment |= {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(tmp_path)}
    for name, value in ENVIRONMENTS[attack].items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    few = int(environment.get("DESCRIPTORS", 256))
    arguments = ["--model.base", str(tiny_folder), "--data.path", str(folder / "строки.jsonl")]
    done = subprocess.run(
        [sys.executable, "-m", "lit.check", *arguments, "--output_dir", str(folder / "run")],
        capture_output=True,
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (few, few)),
        timeout=120,
    )
    error = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in error
    assert done.returncode == 0, error
    assert b"Verdict" in done.stdout
    assert "Почему" in (folder / "run" / "check.html").read_text("utf-8")


def test_a_rank_whose_file_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(gathered: list, values: dict[str, str]) -> None:
        gathered[:] = [values, values | {"the data": "digest of other rows"}]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    ranks = Ranks()
    ranks.size = 2
    with pytest.raises(ConfigError, match="the data is digest of other rows on rank 1, and digest"):
        ranks.check_equal({"the data": "digest", "the checkpoint's step": "0"})
