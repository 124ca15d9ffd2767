"""The answers of a conversation as they are learned: after the prompt that chat gives, in tokens.

Many templates write an earlier answer differently once others follow, without its thoughts for
instance. Each such answer is learned in an example of its own, which ends with it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from data.messages import tr_mark
from data.templates.guard import Guard
from data.templates.writing import Written
from data.types import IGNORE, Example, Message

SEVERAL = tr_mark(
    "conversations are one example per answer, as the template writes earlier answers "
    "differently once others follow"
)
GUARDED = tr_mark("special tokens in texts are read as ordinary text")
CLOSED = tr_mark(
    "answers close a thought that the prompt opens and that the template does not write"
)
UNTHOUGHT = tr_mark(
    "answers that are not learned stand before others without their thoughts, as in chat"
)


class Learned(NamedTuple):
    """An answer to learn, in tokens."""

    turn: int
    ids: list[int]
    """The conversation to the answer's stop token."""
    start: int
    """Where the answer begins."""


def answer_ids(guard: Guard, written: Written, prompt: list[int], whole: list[int]) -> list[int]:
    """Return the tokens of a conversation to an answer's end, which begin with its prompt's.

    A token that joins the end of the prompt and the beginning of the answer is cut in two: in chat
    the model goes on after its prompt, and never meets that token.

    Args:
        guard: Wrote the tokens.
        written: The texts.
        prompt, whole: Their tokens.
    """
    if whole[: len(prompt)] == prompt:
        return whole
    rest = written.whole[len(written.prompt) :]
    return prompt + guard.tokenize([rest], continues=True)[0]


def group(answers: Sequence[Learned], messages: Sequence[Message]) -> list[Example]:
    """Return the fewest examples in which each answer has the tokens that generation gives it.

    Args:
        answers: The answers that train.
        messages: The conversation.
    """
    groups: list[list[Learned]] = []
    for answer in reversed(answers):
        same = (some for some in groups if some[0].ids[: len(answer.ids)] == answer.ids)
        if (found := next(same, None)) is None:
            groups.append([answer])
        else:
            found.append(answer)
    if len(groups) == 1:
        return [Example(*_labeled(groups[0]), messages=messages)]
    examples = []
    for some in reversed(groups):
        learned = {answer.turn for answer in some}
        turns = [
            turn._replace(train=turn.role != "assistant" or i in learned)
            for i, turn in enumerate(messages[: some[0].turn + 1])
        ]
        examples.append(Example(*_labeled(some), messages=turns))
    return examples


def _labeled(answers: Sequence[Learned]) -> tuple[list[int], list[int]]:
    ids = answers[0].ids
    labels = [IGNORE] * len(ids)
    for answer in answers:
        start, end = answer.start, len(answer.ids)
        labels[start:end] = ids[start:end]
    return ids, labels


def count_changes(examples: Sequence[Example]) -> Counter[str]:
    """Return what of a conversation its examples do not write as it is filed, with numbers.

    Args:
        examples: Those of one conversation.
    """
    changes = Counter({SEVERAL: int(len(examples) > 1)})
    for example in examples:
        changes += Counter(
            {GUARDED: example.guarded, CLOSED: example.closed, UNTHOUGHT: example.unthought}
        )
    return changes
