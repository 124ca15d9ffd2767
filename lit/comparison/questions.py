"""Questions to compare on: read from a file, turned into tokens."""

from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

import data
from data.formats import to_messages
from data.readers.source import read
from data.template import continuation_ids, encode, prompt_ids
from data.types import IGNORE, BadRow, DataError, Example, Message, RowError

GENERAL = Path(data.__file__).parent / "corpora" / "general.ru-en.txt"


class Question(NamedTuple):
    """A question, with the conversation before it, and its answer if one is known."""

    turns: list[Message]
    reference: str | None

    @property
    def text(self) -> str:
        """The question alone."""
        return self.turns[-1].content


def questions(path: Path) -> list[Question]:
    """The questions of a text file or a data file."""
    if path.suffix.lower() == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise DataError(f"{path} is not UTF-8; save it as UTF-8") from None
        found = [Question([Message("user", line.strip())], None) for line in lines if line.strip()]
        if not found:
            raise DataError(f"{path} holds no questions")
        return found
    rows = []
    for row in read(path):
        if isinstance(row, BadRow):
            raise DataError(str(row))
        try:
            messages = to_messages(row)
        except RowError as error:
            raise DataError(f"{row.file}:{row.line}: {error}") from None
        last = max(i for i, message in enumerate(messages) if message.role == "assistant")
        rows.append(Question(messages[:last], messages[last].content))
    return rows


def example(row: Question, tokenizer: PreTrainedTokenizerBase) -> Example:
    """A question with its known answer in tokens, the answer labeled."""
    assert row.reference is not None
    if tokenizer.chat_template:
        return encode([*row.turns, Message("assistant", row.reference)], tokenizer)
    before = continuation_ids(row.text, tokenizer)
    after = continuation_ids(f" {row.reference}", tokenizer)
    return Example(before + after, [IGNORE] * len(before) + after)


def prompt_of(row: Question, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens after which the question is to be answered."""
    if tokenizer.chat_template:
        return prompt_ids(row.turns, tokenizer)
    return continuation_ids(row.text, tokenizer)


def general_text(tokenizer: PreTrainedTokenizerBase) -> list[Example]:
    """The paragraphs of the general text, labeled whole but for their first token."""
    paragraphs = GENERAL.read_text("utf-8").split("\n\n")
    tokens = [continuation_ids(text.strip(), tokenizer) for text in paragraphs]
    return [Example(ids, [IGNORE, *ids[1:]]) for ids in tokens]
