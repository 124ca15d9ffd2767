"""The questions and texts of a comparison: read from files and encoded into tokens."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

import data
from data.encoder import Encoder
from data.formats.rows import read_row
from data.readers.source import read
from data.template import continuation_ids, prompt_ids
from data.types import IGNORE, BadRow, DataError, Example, Message, Row, RowError
from lit.messages import tr, tr_mark

GENERAL_TEXT = Path(data.__file__).parent / "corpora" / "general.ru-en.txt"
MAX_BYTES = 1 << 26
"""Bytes of a text file of questions; it is read whole."""


class Question(NamedTuple):
    """A question, with the conversation before it, and its reference answer if there is one."""

    turns: list[Message]
    reference: str | None
    messages: list[Message] = []  # noqa: RUF012  a NamedTuple's default, never changed
    """The whole row: every answer of it that trains has a loss, not only the reference."""
    wrong: tuple[str, ...] = ()
    """Answers that are known to be wrong."""
    accepted: tuple[str, ...] = ()
    """Right answers beside the reference."""
    source: str = ""
    """The row of the run's data that it was made of, as the run's held-out rows say."""

    @property
    def text(self) -> str:
        """The question alone."""
        return self.turns[-1].content


def read_questions(path: Path) -> list[Question]:
    """Read questions from a text file, one per line, or from a data file.

    Raises:
        DataError: The file or one of its rows cannot be read, or it has no questions.
    """
    if path.suffix.lower() == ".txt":
        return _read_lines(path)
    questions = []
    for row in read(path):
        if isinstance(row, BadRow):
            raise DataError(str(row))
        try:
            found = read_row(row)
        except RowError as error:
            raise DataError(f"{row.file}:{row.line}: {error}") from None
        messages = found.messages
        if messages[0].role == "text":
            # A text alone is shown as its first half, and how it goes on.
            text = messages[0].content
            half = len(text) // 2
            shown = [Message("text", text[:half])]
            questions.append(Question(shown, text[half:], messages, source=_source(row)))
            continue
        last = max(i for i, message in enumerate(messages) if message.role == "assistant")
        turns, reference = messages[:last], messages[last].content
        questions.append(Question(turns, reference, messages, *found.judged, _source(row)))
    return questions


def _read_lines(path: Path) -> list[Question]:
    try:
        if not path.is_file():
            # A FIFO or a device may have no end.
            raise DataError(
                tr(
                    "{path} is not a regular file: give a .txt file with one question per line",
                    path=path,
                )
                if path.exists()
                else tr(
                    "{path} does not exist: give a .txt file with one question per line", path=path
                )
            )
        if (size := path.stat().st_size) > MAX_BYTES:
            text = tr_mark("{path} has {size} bytes; at most {most} are read")
            raise DataError(tr(text, path=path, size=size, most=MAX_BYTES))
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(tr("{path} is not UTF-8: save it as UTF-8", path=path)) from None
    questions = [Question([Message("user", line.strip())], None) for line in lines if line.strip()]
    if not questions:
        raise DataError(tr("{path} has no questions: write one per line", path=path))
    return questions


def _source(row: Row) -> str:
    return str(row.fields.get("source", ""))


def sizes_of_conversations(questions: Sequence[Question]) -> list[int]:
    """Return how many consecutive rows of a run's held-out file come from each row of its data.

    A conversation may have become several examples. They were split together and are alike.
    """
    numbered = (question.source or i for i, question in enumerate(questions))
    return [len(list(same)) for _, same in groupby(numbered)]


def evenly_spread(total: int, count: int) -> list[int]:
    """Return up to ``count`` indices, evenly spread over ``total``."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def encode_rows(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    truncation: str = "middle",
) -> list[list[Example]]:
    """Return each row as the examples that training makes of it, with their labels.

    Args:
        questions: Questions of a data file.
        tokenizer: Without a template, only the reference answers have labels.
        max_length, truncation: As in ``data.encoder.Encoder``.

    Raises:
        DataError: A row cannot be encoded; the message has its number.
    """
    if not tokenizer.chat_template:
        return [[_encode_continuation(question, tokenizer)] for question in questions]
    encoder = Encoder(tokenizer, max_length, truncation)
    examples = []
    for number, result in enumerate(encoder.encode_all([q.messages for q in questions]), 1):
        if isinstance(result, RowError):
            raise DataError(tr("row {number}: {result}", number=number, result=result))
        examples.append(result)
    return examples


def _encode_continuation(question: Question, tokenizer: PreTrainedTokenizerBase) -> Example:
    return _continuation(question.text, str(question.reference), tokenizer)


def _continuation(question: str, answer: str, tokenizer: PreTrainedTokenizerBase) -> Example:
    prompt = continuation_ids(question, tokenizer)
    if not prompt:  # no token predicts a row's first one
        prompt = [x for x in (tokenizer.bos_token_id, tokenizer.eos_token_id) if x is not None][:1]
    ids = continuation_ids(f" {answer}", tokenizer)
    return Example(prompt + ids, [IGNORE] * len(prompt) + ids)


def encode_answers(
    conversations: Sequence[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    truncation: str = "middle",
) -> list[Example | RowError]:
    """Return conversations in tokens, with labels on the last answer alone.

    Args:
        conversations: Each ends with the answer; no earlier turn trains.
        tokenizer: Without a template, the answer continues the question.
        max_length, truncation: As in ``data.encoder.Encoder``.
    """
    if tokenizer.chat_template:
        found = Encoder(tokenizer, max_length, truncation).encode_all(conversations)
        return [x if isinstance(x, RowError) else x[-1] for x in found]
    return [
        _continuation(turns[-2].content, turns[-1].content, tokenizer) for turns in conversations
    ]


def encode_prompt(
    question: Question,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None = None,
    truncation: str = "middle",
) -> list[int]:
    """Return the tokens after which a model writes its answer.

    Args:
        question: The question.
        tokenizer: Its template is used, if it has one.
        max_length, truncation: A question that training would cut to fit with its reference answer
            is cut in the same way.
    """
    if not tokenizer.chat_template:
        return continuation_ids(question.text, tokenizer)
    alone = question.turns[0].role == "text"
    if max_length is not None and question.reference is not None and not alone:
        untrained = [turn._replace(train=False) for turn in question.turns]
        answer = question.messages[len(question.turns)]._replace(train=True)
        (result,) = Encoder(tokenizer, max_length, truncation).encode_all([[*untrained, answer]])
        if not isinstance(result, RowError) and result[0].cut:
            ids, labels = result[0].ids, result[0].labels
            return ids[: [label == IGNORE for label in labels].index(False)]
    return prompt_ids(question.turns, tokenizer)


def general_text(tokenizer: PreTrainedTokenizerBase, limit: int | None = None) -> list[Example]:
    """Return the paragraphs of the general text; all tokens but the first have labels.

    Args:
        tokenizer: The tokenizer.
        limit: The most tokens of a paragraph; the rest is dropped.
    """
    paragraphs = GENERAL_TEXT.read_text("utf-8").split("\n\n")
    tokens = [continuation_ids(text.strip(), tokenizer)[:limit] for text in paragraphs]
    return [Example(ids, [IGNORE, *ids[1:]]) for ids in tokens]
