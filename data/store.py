"""Tokenised examples in Arrow: memory-mapped, and cached by content."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter
from transformers import PreTrainedTokenizerBase

from data.formats import to_messages
from data.rows import read
from data.encoder import TRUNCATIONS
from data.template import encode
from data.types import BadRow, DataError, Example, Message, Row, RowError, TooLongError

ON_BAD_ROW = ("error", "skip")
SHOWN = 20
FEATURES = datasets.Features(
    {
        "ids": datasets.List(datasets.Value("int32")),
        "labels": datasets.List(datasets.Value("int32")),
        "line": datasets.Value("int64"),
        "length": datasets.Value("int32"),
        "targets": datasets.Value("int32"),
        "question": datasets.Value("int64"),
    }
)


@dataclass
class Ledger:
    """What became of every row of a file: used + bad + too_long == read."""

    read: int = 0
    used: int = 0
    cut_rows: int = 0
    cut_tokens: int = 0
    bad: list[str] = field(default_factory=list)
    too_long: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{self.read} rows read, {self.used} used"]
        if self.cut_rows:
            parts.append(f"{self.cut_rows} prompts cut by {self.cut_tokens} tokens in all")
        if self.too_long:
            parts.append(f"{len(self.too_long)} left out as too long")
        if self.bad:
            parts.append(f"{len(self.bad)} bad and skipped")
        return ", ".join(parts)


@dataclass
class Store:
    """The examples of one file.

    Shapes:
        lengths, targets, questions, lines: (rows,) tokens, labelled tokens, equal numbers for
        equal questions, and lines of the file.
    """

    table: datasets.Dataset
    ledger: Ledger

    def __post_init__(self) -> None:
        columns = self.table.with_format("numpy")
        self.lengths: np.ndarray = columns["length"][:]
        self.targets: np.ndarray = columns["targets"][:]
        self.questions: np.ndarray = columns["question"][:]
        self.lines: np.ndarray = columns["line"][:]

    def __len__(self) -> int:
        return len(self.table)

    def example(self, row: int) -> Example:
        """One row in tokens."""
        record = self.table[int(row)]
        return Example(record["ids"], record["labels"])


def build(
    path: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    truncation: str = "middle",
    on_bad_row: str = "error",
    cache: Path | None = None,
) -> Store:
    """Read, tokenise and store a file, or find it stored already.

    Args:
        path: The data file.
        tokenizer: With its template.
        max_length: Tokens a row may have.
        truncation: As in ``data.template.encode``.
        on_bad_row: ``error``, or ``skip``: leave bad rows out and count them.
        cache: A folder; by default one inside that of the library ``datasets``.

    Raises:
        DataError: A setting is unknown, rows are bad and on_bad_row is ``error``, or no row is
            usable.
    """
    for name, value, known in (
        ("truncation", truncation, TRUNCATIONS),
        ("on_bad_row", on_bad_row, ON_BAD_ROW),
    ):
        if value not in known:
            raise DataError(f"data.{name} is {value!r}; there are {', '.join(known)}")
    if max_length < 1:
        raise DataError(f"data.max_length is {max_length}; it must be 1 or more (512 is usual)")
    path = Path(path)
    rows = read(path)
    first = next(rows)  # a missing or foreign file is reported before it is hashed
    cache = cache or Path(datasets.config.HF_DATASETS_CACHE) / "lit-lora"
    folder = cache / _fingerprint(path, tokenizer, max_length, truncation)
    if not (folder / "ledger.json").is_file():
        del first, rows

        def encode_messages(messages: list[Message]) -> Example:
            return encode(messages, tokenizer, max_length, truncation)

        _write(path, folder, encode_messages)
    ledger = Ledger(**json.loads((folder / "ledger.json").read_text(encoding="utf-8")))
    _judge(path, ledger, on_bad_row, max_length)
    return Store(datasets.Dataset.from_file(str(folder / "rows.arrow")), ledger)


def conversations(path: str | Path, lines: set[int]) -> Iterator[tuple[Row, list[Message]]]:
    """The conversations that stand at some lines of a file."""
    for row in read(path):
        if isinstance(row, Row) and row.line in lines:
            yield row, to_messages(row)


def question_hash(messages: list[Message]) -> int:
    """A number that is equal for questions that differ in case and white space only."""
    first = next(message.content for message in messages if message.role == "user")
    text = " ".join(first.casefold().split())
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _write(path: Path, folder: Path, encode_messages: Callable[[list[Message]], Example]) -> None:
    """Fill the folder under another name first, so that it appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
        new = Path(temporary) / folder.name
        new.mkdir()
        ledger = Ledger()
        writer = ArrowWriter(features=FEATURES, path=str(new / "rows.arrow"))
        for record in _records(path, encode_messages, ledger):
            writer.write(record)
        writer.finalize()
        text = json.dumps(asdict(ledger), ensure_ascii=False)
        (new / "ledger.json").write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def _records(
    path: Path, encode_messages: Callable[[list[Message]], Example], ledger: Ledger
) -> Iterator[dict[str, Any]]:
    for row in read(path):
        ledger.read += 1
        if isinstance(row, BadRow):
            ledger.bad.append(str(row))
            continue
        try:
            messages = to_messages(row)
            example = encode_messages(messages)
        except RowError as error:
            reason = BadRow(row.file, row.line, str(error))
            kind = ledger.too_long if isinstance(error, TooLongError) else ledger.bad
            kind.append(str(reason))
            continue
        except DataError as error:
            raise DataError(f"{row.file}:{row.line}: {error}") from None
        ledger.used += 1
        ledger.cut_rows += example.cut > 0
        ledger.cut_tokens += example.cut
        yield {
            "ids": example.ids,
            "labels": example.labels,
            "line": row.line,
            "length": len(example.ids),
            "targets": sum(label >= 0 for label in example.labels),
            "question": question_hash(messages),
        }


def _judge(path: Path, ledger: Ledger, on_bad_row: str, max_length: int) -> None:
    if ledger.bad and on_bad_row == "error":
        shown = "\n".join(ledger.bad[:SHOWN])
        more = f"\n… and {len(ledger.bad) - SHOWN} more" if len(ledger.bad) > SHOWN else ""
        raise DataError(
            f"{len(ledger.bad)} of {ledger.read} rows of {path} are bad:\n{shown}{more}\n"
            "Mend them, or set data.on_bad_row to skip."
        )
    if not ledger.used:
        raise DataError(
            f"no row of {path} is usable at data.max_length {max_length}: {ledger}. "
            f"The first: {(ledger.too_long + ledger.bad)[0]}"
        )


def _fingerprint(
    path: Path, tokenizer: PreTrainedTokenizerBase, max_length: int, truncation: str
) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    # Tokens follow from the tokenizer, the settings and this package's own code.
    tokens = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else tokenizer.get_vocab()
    settings = [str(path), tokens, tokenizer.chat_template, max_length, truncation]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:32]
