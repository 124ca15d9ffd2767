"""The records of a store: an example with what is known of its row."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import datasets

from data.formats.judged import Judged
from data.text import fold, normalize, replace_surrogates
from data.types import IGNORE, Example, Message, Row

INDEX_COLUMNS = ("length", "label_count", "question_hash", "content_hash")
"""Columns that are held in memory; the others stay on disk."""
ROW_FEATURES = datasets.Features(
    {
        "ids": datasets.List(datasets.Value("int32")),
        "labels": datasets.List(datasets.Value("int32")),
        "length": datasets.Value("int32"),
        "label_count": datasets.Value("int32"),
        "question_hash": datasets.Value("int64"),
        "content_hash": datasets.Value("int64"),
        "messages": datasets.Value("string"),
        "judged": datasets.Value("string"),
        "file": datasets.Value("string"),
        "line": datasets.Value("int64"),
    }
)


def make_record(row: Row, example: Example, judged: Judged) -> dict[str, Any]:
    """Return a record of the store.

    Args:
        row: Where the example comes from.
        example: The example.
        judged: The row's answers that are not learned.
    """
    messages = example.messages
    return {
        "ids": example.ids,
        "labels": example.labels,
        "length": len(example.ids),
        "label_count": len(example.labels) - example.labels.count(IGNORE),
        "question_hash": question_hash(messages),
        "content_hash": content_hash(messages),
        "messages": json.dumps(messages, ensure_ascii=False),
        "judged": json.dumps(judged, ensure_ascii=False),
        "file": replace_surrogates(row.file),  # a name in another encoding than the system's
        "line": row.line,
    }


def question_hash(messages: Sequence[Message]) -> int:
    """Return a hash of the first question that ignores case, white space and the Unicode form."""
    asked = (message.content for message in messages if message.role in ("user", "text"))
    first = next(asked)
    return _hash(fold(first).split())


def content_hash(messages: Sequence[Message]) -> int:
    """Return a hash of a conversation that ignores white space and the Unicode form."""
    texts = [(turn.role, normalize(turn.content)) for turn in messages]
    return _hash([word for role, text in texts for word in (f"\0{role}", *text.split())])


def _hash(words: Sequence[str]) -> int:
    digest = blake2b(" ".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
