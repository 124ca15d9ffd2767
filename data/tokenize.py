"""Tokenize rows in chunks, with several processes if there are many rows."""

import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow

from data.encoder import Encoder
from data.formats.judged import Judged
from data.formats.rows import UnknownKeysError, read_row
from data.formats.turns import train_on_last
from data.learned_answers import count_changes
from data.messages import language, tr, tr_mark
from data.readers.source import Source
from data.records import ROW_FEATURES, make_record
from data.report.row_issue import BAD, CUT, TOO_LONG, RowIssue, make_issue, printable
from data.text import replace_surrogates
from data.types import BadRow, Message, Row, RowError, TooLongError

CHUNK_ROWS = 2048
SERIAL_CHUNKS = 4
"""Chunks that this process tokenizes before it starts others: a small file needs none."""

CUT_TEXT = tr_mark("{cut} tokens cut from the end of the text")
CUT_PROMPT = tr_mark("{cut} tokens cut from the middle of the prompt")


class TokenizedChunk(NamedTuple):
    """The examples of a chunk of rows, and its issues."""

    table: pyarrow.Table
    used: int
    """Rows that became examples."""
    issues: list[RowIssue]
    files: Counter[str]
    """Rows read, by file."""
    unread: Counter[tuple[str, str]]
    """Rows with a value under a key that is not read, by file and key."""
    changes: Counter[str]
    """Values that were not taken as they are filed, by what was done."""
    unknown_keys: dict[str, list[str]]
    """The keys of the first row with unknown keys, by file."""


@dataclass
class TokenizeRows:
    """A picklable function that tokenizes a chunk of rows.

    Args:
        source: Where they come from.
        encoder: Gives tokens and labels.
        train_on: ``all`` answers of a conversation, or the ``last``.
    """

    source: Source
    encoder: Encoder
    train_on: str = "all"

    def __call__(self, rows: Sequence[Row | BadRow]) -> TokenizedChunk:
        """Tokenize rows.

        Raises:
            DataError: The template does not end an answer with a special token.
        """
        issues: dict[int, list[RowIssue]] = {}
        conversations: dict[int, tuple[Row, list[Message], Judged]] = {}
        files = Counter(replace_surrogates(row.file) for row in rows)
        unread: Counter[tuple[str, str]] = Counter()
        changes: Counter[str] = Counter()
        unknown_keys: dict[str, list[str]] = {}
        for i, row in enumerate(rows):
            if isinstance(row, BadRow):
                issues[i] = [make_issue(BAD, row, row.reason)]
                continue
            try:
                read = read_row(row, self.source.columns)
            except RowError as error:
                issues[i] = [make_issue(BAD, row, str(error))]
                if isinstance(error, UnknownKeysError):
                    keys = [printable(key) for key in error.keys]
                    unknown_keys.setdefault(issues[i][0].file, keys)
                continue
            last_only = self.train_on == "last"
            messages = train_on_last(read.messages) if last_only else read.messages
            conversations[i] = row, messages, read.judged
            changes += read.changes
            for key, count in read.unread.items():
                unread[replace_surrogates(row.file), printable(key)] += count
        records, used = [], 0
        results = self.encoder.encode_all([messages for _, messages, _ in conversations.values()])
        for (i, taken), examples in zip(conversations.items(), results, strict=True):
            row, messages, judged = taken
            if isinstance(examples, TooLongError):
                issues[i] = [make_issue(TOO_LONG, row, str(examples), examples.tokens)]
                continue
            if isinstance(examples, RowError):
                issues[i] = [make_issue(BAD, row, str(examples))]
                continue
            used += 1
            end = messages[0].role == "text"
            text = CUT_TEXT if end else CUT_PROMPT
            issues[i] = [
                make_issue(CUT, row, tr(text, cut=x.cut), x.cut) for x in examples if x.cut
            ]
            changes += count_changes(examples)
            # The row's own answer is its last one.
            last = examples[-1]
            records += [make_record(row, x, judged if x is last else Judged()) for x in examples]
        table = pyarrow.Table.from_pylist(records, ROW_FEATURES.arrow_schema)
        found = [issue for i in sorted(issues) for issue in issues[i]]
        return TokenizedChunk(table, used, found, files, unread, changes, unknown_keys)

    def fingerprint(self) -> str:
        """Hash everything that a store depends on: rows, tokenizer, arguments, this package."""
        encoder, tokenizer = self.encoder, self.encoder.tokenizer
        fast = tokenizer.is_fast
        tokens = tokenizer.backend_tokenizer.to_str() if fast else tokenizer.get_vocab()
        values = [
            *(self.source.fingerprint(), tokens, tokenizer.chat_template),
            *(tokenizer.special_tokens_map, encoder.max_length, encoder.truncation, self.train_on),
            language(),  # of the reasons why rows are left out
        ]
        digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
        for code in sorted(Path(__file__).parent.rglob("*.py")):
            digest.update(code.read_bytes())
        return digest.hexdigest()[:32]


def tokenize_chunks(
    rows: Iterator[Row | BadRow], tokenize: TokenizeRows, processes: int | None = None
) -> Iterator[TokenizedChunk]:
    """Yield rows as tokenized chunks, in their order, with few chunks in memory at a time.

    Args:
        rows: The rows, read as they are needed.
        tokenize: Tokenizes one chunk.
        processes: The number of processes; None for one per core.
    """
    chunks = iter(lambda: list(islice(rows, CHUNK_ROWS)), [])
    yield from map(tokenize, islice(chunks, SERIAL_CHUNKS))
    following = next(chunks, None)
    if following is None:
        return
    processes = processes or _cores()
    if processes == 1:
        yield tokenize(following)
        yield from map(tokenize, chunks)
        return
    # A forked process has the libraries loaded; other systems than Linux cannot fork safely.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(processes, context, _start_worker, (tokenize,)) as pool:
        pending: deque[Future[TokenizedChunk]] = deque([pool.submit(_run_worker, following)])
        try:
            # The executor's own queue has no limit: it would hold the whole file.
            for chunk in chunks:
                pending.append(pool.submit(_run_worker, chunk))
                if len(pending) > 2 * processes:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return min(os.cpu_count() or 1, 61)  # the most that a pool may have on Windows


_worker_tokenize: Callable[[Sequence[Row | BadRow]], TokenizedChunk]


def _start_worker(tokenize: TokenizeRows) -> None:
    """Prepare a process of the pool."""
    global _worker_tokenize
    _worker_tokenize = tokenize
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes already share the cores
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process stops the others


def _run_worker(rows: list[Row | BadRow]) -> TokenizedChunk:
    return _worker_tokenize(rows)
