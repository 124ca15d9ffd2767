"""Answers of a row that are not learned: a comparison measures by them."""

from collections.abc import Sequence
from typing import NamedTuple

from data.formats.values import Fields
from data.messages import tr
from data.types import Message, RowError


class Judged(NamedTuple):
    """Answers beside the row's own."""

    wrong: tuple[str, ...] = ()
    """Answers that are plausible and false."""
    accepted: tuple[str, ...] = ()
    """Further right answers."""


def read_judged(fields: Fields, messages: Sequence[Message]) -> Judged:
    """Return the judged answers of a row; both fields are optional.

    Args:
        fields: The row.
        messages: Its conversation.

    Raises:
        RowError: A field is no list of texts, or a wrong answer is right too.
    """
    judged = Judged(*(fields.texts(name) for name in Judged._fields))
    right = {messages[-1].content, *judged.accepted}
    if both := right & {*judged.wrong}:
        raise RowError(
            tr(
                "{field}: {answer!r} is also a right answer",
                field=fields.where("wrong"),
                answer=min(both)[:60],
            )
        )
    return judged
