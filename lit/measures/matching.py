"""Whether a model ties an answer to its question: the right answer among others, by likelihood.

An answer's score is its mean log-probability per token after the question, minus that after an
empty question. So an answer that is likely after any question wins nothing.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.types import Example, Message, RowError
from lit.messages import tr_mark

OTHERS = 3
"""Answers of other rows beside the right one."""
MOST_ROWS = 500
"""Rows whose answers are compared; all pairs of them are looked at."""
NEAREST = tr_mark("answers of equal length")
SIMILAR = tr_mark("answers to similar questions")
WRONG = tr_mark("wrong answers")
EMPTY = -1
"""The number of the empty question."""
Key = tuple[int, str]
"""The number of a question, and an answer to score after it."""
Encode = Callable[[list[list[Message]]], Sequence[Example | RowError]]
"""Turns conversations into tokens, with labels on the last answer."""


class Case(NamedTuple):
    """A question with its answer."""

    turns: list[Message]
    """The conversation; the question is its last turn."""
    answer: str
    wrong: tuple[str, ...] = ()
    """Answers that are known to be wrong."""


class Matching:
    """The answers that each row's own answer must beat.

    Args:
        cases: The rows.
        encode: Encodes a conversation.
    """

    def __init__(self, cases: Sequence[Case], encode: Encode) -> None:
        self.cases, self.encode = cases, encode
        answers = [case.answer for case in cases]
        far = np.abs(np.subtract.outer(*[np.array([len(answer) for answer in answers])] * 2))
        alike = similarity([case.turns[-1].content for case in cases])
        self.others: dict[str, list[tuple[str, ...]]] = {
            NEAREST: [_first_others(answers, i, far[i]) for i in range(len(cases))],
            SIMILAR: [_first_others(answers, i, -alike[i]) for i in range(len(cases))],
            WRONG: [case.wrong for case in cases],
        }

    def keys(self, row: int, kinds: Sequence[str] = (NEAREST, SIMILAR, WRONG)) -> list[Key]:
        """Return what must be scored for a row, for some kinds of other answers."""
        others = (text for kind in kinds for text in self.others[kind][row])
        texts = dict.fromkeys((self.cases[row].answer, *others))
        return [(question, text) for text in texts for question in (row, EMPTY)]

    def examples(self, keys: Sequence[Key]) -> dict[Key, Example]:
        """Return keys in tokens, without those that cannot be encoded."""
        asked = [self._conversation(*key) for key in keys]
        encoded = zip(keys, self.encode(asked), strict=True)
        return {key: example for key, example in encoded if not isinstance(example, RowError)}

    def right(self, kind: str, row: int, means: Mapping[Key, np.ndarray]) -> np.ndarray | None:
        """Return whether a row's own answer has the highest score, (models,): 0, 1, or NaN.

        Args:
            kind: ``NEAREST``, ``SIMILAR`` or ``WRONG``.
            row: The row.
            means: Mean log-probability of a token by key, (models,) each.

        Returns:
            None if the row has no other answers of this kind, or one was not scored.
        """
        answer, others = self.cases[row].answer, self.others[kind][row]
        texts = (answer, *others)
        if not others or any((q, text) not in means for text in texts for q in (row, EMPTY)):
            return None
        scores = np.stack([means[row, text] - means[EMPTY, text] for text in texts])
        return np.where(np.isfinite(scores).all(0), scores[0] > scores[1:].max(0), np.nan)

    def chance(self, kind: str, rows: Sequence[int]) -> float:
        """Return the share that guessing gets right."""
        return float(np.mean([1 / (1 + len(self.others[kind][row])) for row in rows]))

    def _conversation(self, question: int, answer: str) -> list[Message]:
        # The empty question has no system text and no earlier turns: it is the same for all rows.
        turns = [Message("user", "")] if question == EMPTY else self.cases[question].turns
        return [*(turn._replace(train=False) for turn in turns), Message("assistant", answer)]


def _first_others(answers: Sequence[str], own: int, distance: np.ndarray) -> tuple[str, ...]:
    """Return the texts of the nearest other answers, each once and none equal to the row's own."""
    order = np.argsort(distance, kind="stable")
    texts = dict.fromkeys(answers[i] for i in order if answers[i] != answers[own])
    return tuple(texts)[:OTHERS]


def similarity(texts: Sequence[str]) -> np.ndarray:
    """Return the cosines of texts by the TF-IDF of their character trigrams, (texts, texts)."""
    counts = [_trigrams(text) for text in texts]
    column = {gram: i for i, gram in enumerate(dict.fromkeys(g for count in counts for g in count))}
    table = np.zeros((len(texts), len(column)))
    for row, count in enumerate(counts):
        for gram, number in count.items():
            table[row, column[gram]] = number
    table *= np.log((1 + len(texts)) / (1 + (table > 0).sum(0))) + 1
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return table @ table.T


def _trigrams(text: str) -> Counter[str]:
    words = (f" {word} " for word in text.casefold().split())
    return Counter(word[i : i + 3] for word in words for i in range(len(word) - 2))
