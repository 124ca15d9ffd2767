"""Rows become tokens chunk by chunk, in several processes where there are many."""

import json
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import datasets
import pyarrow

from data.encoder import Encoder
from data.formats import to_messages
from data.readers.source import Source
from data.row_report import BAD, CUT, TOO_LONG, RowIssue
from data.types import IGNORE, BadRow, Example, Message, Row, RowError, TooLongError

SIZE = 2048
LONGEST = 400
"""Letters of a reason that are kept."""
ALONE = 4
"""Chunks that are made before other processes are started: a small file is done sooner alone."""
INDEX = ("length", "targets", "question", "content")
"""What is held of every row; the rest stays on disk until a row is asked for."""
FEATURES = datasets.Features(
    {
        "ids": datasets.List(datasets.Value("int32")),
        "labels": datasets.List(datasets.Value("int32")),
        "length": datasets.Value("int32"),
        "targets": datasets.Value("int32"),
        "question": datasets.Value("int64"),
        "content": datasets.Value("int64"),
        "messages": datasets.Value("string"),
        "file": datasets.Value("string"),
        "line": datasets.Value("int64"),
    }
)


class Chunk(NamedTuple):
    """Rows in tokens, and those that were cut or left out."""

    rows: pyarrow.Table
    issues: list[RowIssue]
    read: int


@dataclass
class TokenizeRows:
    """Makes a chunk of rows as they were read; goes to other processes as a value."""

    source: Source
    encoder: Encoder

    def __call__(self, rows: Sequence[Row | BadRow]) -> Chunk:
        """TokenizeRows a chunk.

        Raises:
            DataError: The template does not end an answer.
        """
        issues: dict[int, RowIssue] = {}
        read: dict[int, tuple[Row, list[Message]]] = {}
        for place, row in enumerate(rows):
            if isinstance(row, BadRow):
                issues[place] = _issue(BAD, row, row.reason)
                continue
            try:
                read[place] = row, to_messages(row, self.source.columns)
            except RowError as error:
                issues[place] = _issue(BAD, row, str(error))
        records = []
        examples = self.encoder.encode_all([messages for _, messages in read.values()])
        for (place, (row, messages)), example in zip(read.items(), examples, strict=True):
            if isinstance(example, TooLongError):
                issues[place] = _issue(TOO_LONG, row, str(example), example.tokens)
            elif isinstance(example, RowError):
                issues[place] = _issue(BAD, row, str(example))
            else:
                if example.cut:
                    reason = f"the prompt's middle is cut by {example.cut} tokens"
                    issues[place] = _issue(CUT, row, reason, example.cut)
                records.append(_record(row, messages, example))
        table = pyarrow.Table.from_pylist(records, FEATURES.arrow_schema)
        return Chunk(table, [issues[place] for place in sorted(issues)], len(rows))


def _issue(kind: str, row: Row | BadRow, reason: str, tokens: int = 0) -> RowIssue:
    # A row's own keys stand in some reasons, and they may be of any length and hold anything.
    shown = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]} …"
    line = "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in shown)
    return RowIssue(kind, row.file, row.line, line, tokens)


def _record(row: Row, messages: list[Message], example: Example) -> dict[str, Any]:
    return {
        "ids": example.ids,
        "labels": example.labels,
        "length": len(example.ids),
        "targets": len(example.labels) - example.labels.count(IGNORE),
        "question": question_hash(messages),
        "content": content_hash(messages),
        "messages": json.dumps(messages, ensure_ascii=False),
        "file": row.file,
        "line": row.line,
    }


def question_hash(messages: Sequence[Message]) -> int:
    """A number that is equal for questions that differ in case and white space only."""
    first = next(message.content for message in messages if message.role == "user")
    return _hash(first.casefold().split())


def content_hash(messages: Sequence[Message]) -> int:
    """A number that is equal for conversations that differ in white space only."""
    return _hash([word for turn in messages for word in (f"\0{turn.role}", *turn.content.split())])


def _hash(words: Sequence[str]) -> int:
    digest = blake2b(" ".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def chunks(
    rows: Iterator[Row | BadRow], tokenize: TokenizeRows, processes: int | None = None
) -> Iterator[Chunk]:
    """TokenizeRows rows in their order, of which few are held at a time.

    Args:
        rows: As they are read.
        tokenize: What is done to each chunk of them.
        processes: How many share the work; None for one a core.
    """
    read = iter(lambda: list(islice(rows, SIZE)), [])
    yield from map(tokenize, islice(read, ALONE))
    following = next(read, None)
    if following is None:
        return
    processes = processes or _cores()
    if processes == 1:
        yield tokenize(following)
        yield from map(tokenize, read)
        return
    # A forked process has the libraries loaded; elsewhere than on Linux forking is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(processes, context, _begin, (tokenize,)) as pool:
        waiting: deque[Future[Chunk]] = deque([pool.submit(_work, following)])
        try:
            # The executor would take in the whole file if it were let.
            for chunk in read:
                waiting.append(pool.submit(_work, chunk))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_tokenise: Callable[[Sequence[Row | BadRow]], Chunk]


def _begin(tokenize: TokenizeRows) -> None:
    """What a process does once."""
    global _tokenise
    _tokenise = tokenize
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes share the cores already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process stops the others


def _work(rows: list[Row | BadRow]) -> Chunk:
    return _tokenise(rows)
