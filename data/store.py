"""Tokenized examples in Arrow: memory-mapped, and cached by content."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import datasets
import numpy as np
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from data.encoder import TRUNCATIONS, Encoder
from data.formats import check_columns
from data.readers.source import Source
from data.row_report import BAD, ISSUES, TOO_LONG, RowReport
from data.tokenize import FEATURES, INDEX, TokenizeRows, chunks
from data.types import BadRow, DataError, Example, Message, Row

ON_BAD_ROW = ("error", "skip")


class Store:
    """The examples of a source.

    Args:
        table: A row for each example.
        index: The columns of it that are held in memory.
        report: What became of every row that was read.

    Shapes:
        lengths, targets, questions, contents: (rows,) tokens, labeled tokens, and equal numbers
        for equal questions and for equal conversations.
    """

    def __init__(self, table: datasets.Dataset, index: datasets.Dataset, report: RowReport) -> None:
        self.table, self.report = table, report
        columns: list[np.ndarray] = [index.data.column(name).to_numpy() for name in INDEX]
        self.lengths, self.targets, self.questions, self.contents = columns

    def __len__(self) -> int:
        return len(self.table)

    def example(self, row: int) -> Example:
        """One row in tokens."""
        record = self.table[int(row)]
        return Example(record["ids"], record["labels"])

    def location(self, row: int) -> str:
        """Where a row was read, as ``file:line``."""
        record = self.table[int(row)]
        return f"{record['file']}:{record['line']}"

    def messages(self, row: int) -> list[Message]:
        """The conversation of a row."""
        return [Message(*turn) for turn in json.loads(self.table[int(row)]["messages"])]


def build(
    source: Source | str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    truncation: str = "middle",
    on_bad_row: str = "error",
    processes: int | None = None,
    cache: Path | None = None,
) -> Store:
    """Read, tokenize and store a source, or find it stored already.

    Args:
        source: What to read.
        tokenizer: With its template.
        max_length: Tokens a row may have.
        truncation: As in ``data.encoder``.
        on_bad_row: ``error``, or ``skip``: leave bad rows out and count them.
        processes: How many tokenize a large file; None for one a core.
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
    source = source if isinstance(source, Source) else Source(source)
    check_columns(source.columns)
    cache = cache or Path(datasets.config.HF_DATASETS_CACHE) / "lit-lora"
    encoder = Encoder(tokenizer, max_length, truncation)
    folder = cache / _fingerprint(source, encoder)
    cache.mkdir(parents=True, exist_ok=True)
    # All ranks of a node ask for the same rows; one of them makes them.
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _write(folder, source, TokenizeRows(source, encoder), processes)
        report = RowReport(**json.loads((folder / "row_report.json").read_text(encoding="utf-8")))
        report.table = datasets.Dataset.from_file(str(folder / "issues.arrow"))
        if report.unread:
            # What kept a file from being read may be mended without a change to the file.
            shutil.rmtree(folder, ignore_errors=True)
    _judge(source, report, on_bad_row, truncation, max_length)
    table, index = (
        datasets.Dataset.from_file(str(folder / f"{name}.arrow")) for name in ("rows", "index")
    )
    return Store(table, index, report)


def _write(folder: Path, source: Source, tokenize: TokenizeRows, processes: int | None) -> None:
    """Fill the folder under another name first, so that it appears whole or not at all."""
    new = folder.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        report = RowReport()
        rows = ArrowWriter(features=FEATURES, path=str(new / "rows.arrow"))
        # Apart from the tokens: reading a column among them would map most of the file.
        columns = datasets.Features({name: FEATURES[name] for name in INDEX})
        index = ArrowWriter(features=columns, path=str(new / "index.arrow"))
        issues = ArrowWriter(features=ISSUES, path=str(new / "issues.arrow"))
        for chunk in chunks(_read(source, report), tokenize, processes):
            report.read += chunk.read
            report.used += len(chunk.rows)
            rows.write_table(chunk.rows)
            index.write_table(chunk.rows.select(INDEX))
            for issue in chunk.issues:
                report.add(issue)
                issues.write(issue._asdict())
        for writer in (rows, index, issues):
            writer.finalize()
        text = json.dumps(asdict(report), ensure_ascii=False)
        (new / "row_report.json").write_text(text, encoding="utf-8")
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _read(source: Source, report: RowReport) -> Iterator[Row | BadRow]:
    """The rows of every part; one that breaks off does not hide what is wrong in the others."""
    for part in source.parts():
        try:
            report.files.append(source.described(part))
            yield from source.read(part)
        except DataError as error:
            report.unread.append(str(error))


def _judge(
    source: Source, report: RowReport, on_bad_row: str, truncation: str, max_length: int
) -> None:
    said = []
    bad, too_long = report.count(BAD), report.count(TOO_LONG)
    if report.unread:
        said += report.unread
    if bad and on_bad_row == "error":
        said += [
            f"{bad} of {report.read} rows of {source} are bad:\n{report.listing(BAD)}",
            "Mend them, or set data.on_bad_row to skip.",
        ]
    if too_long and truncation == "error":
        said += [
            f"{too_long} of {report.read} rows of {source} are too long, and data.truncation is "
            f"error:\n{report.listing(TOO_LONG)}"
        ]
    if not report.used and not said:
        first = next((issue for kind in (TOO_LONG, BAD) for issue in report.issues(kind)), None)
        said += [
            f"no row of {source} is usable at data.max_length {max_length}: {report}. "
            f"The first: {first}"
        ]
    if said:
        raise DataError("\n".join(said))


def _fingerprint(source: Source, encoder: Encoder) -> str:
    tokenizer = encoder.tokenizer
    # Tokens follow from the rows, the tokenizer, the settings and this package's own code.
    tokens = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else tokenizer.get_vocab()
    settings = [
        *(source.fingerprint(), tokens, tokenizer.chat_template, tokenizer.special_tokens_map),
        *(encoder.max_length, encoder.truncation),
    ]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for code in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(code.read_bytes())
    return digest.hexdigest()[:32]
