"""Matching within a time: as many rows as fit, from the front of the order."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from data.types import Example, Message
from lit.comparison import matching
from lit.comparison.questions import Question
from lit.measures.intervals import MIN_ROWS
from lit.measures.losses import Losses
from lit.measures.measured import Group
from lit.settings import budget
from lit.settings.budget import Budget

ROWS = 34


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that each example moves by a second."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    for module in (matching, budget):
        monkeypatch.setattr(module, "time", clock)
    return now


@pytest.mark.parametrize("share", [0.1, 0.5, 0.6, 0.8, 2.0])
def test_as_many_rows_are_matched_as_fit_into_the_time(now: list[float], share: float) -> None:
    questions = [
        Question([Message("user", f"What is {i} of {i * i}?")], f"{'x' * (i % 7)}{i}")
        for i in range(ROWS)
    ]

    def measure_losses(examples: Sequence[Example], tell: Callable[[int], None]) -> Losses:
        now[0] += len(examples)
        values = np.arange(1.0, len(examples) + 1)
        return Losses(values, values, np.ones(len(examples)))

    def run(seconds: float) -> tuple[int, float]:
        start = now[0]
        told: list[int] = []
        found = matching.measure_matching(
            measure_losses,
            questions,
            lambda conversations: [Example([1, 2], [-100, 2]) for _ in conversations],
            Budget(seconds),
            told.append,
        )
        assert sum(told) == found.rows
        assert {x.group for x in found.measures} == {Group.MATCHING}
        assert {x.rows for x in found.measures} == {found.rows}
        return found.rows, now[0] - start

    rows, needed = run(1e9)
    assert rows == ROWS
    rows, used = run(share * needed)
    assert rows >= MIN_ROWS
    if rows < ROWS and rows > MIN_ROWS:
        # A row has at most 14 examples of its own, and less than that is left.
        assert share * needed - 14 <= used <= share * needed + 14
    assert (rows == ROWS) == (share > 1)


def test_rows_whose_losses_are_known_are_not_measured_again() -> None:
    """What was measured before counts as if it were measured here."""
    questions = [Question([Message("user", f"What is {i}?")], "x" * (1 + i)) for i in range(ROWS)]
    measured: list[tuple[int, ...]] = []

    def encode(conversations: list[list[Message]]) -> list[Example]:
        texts = ["".join(turn.content for turn in turns) for turns in conversations]
        return [Example([ord(x) for x in text], [-100, *map(ord, text[1:])]) for text in texts]

    def mean(example: Example) -> float:
        return sum(example.ids) / len(example.ids) % 1

    def measure_losses(examples: Sequence[Example], tell: Callable[[int], None]) -> Losses:
        measured.extend(tuple(example.ids) for example in examples)
        values = np.array([mean(example) for example in examples])
        return Losses(values, 2 * values, np.ones(len(examples)))

    def run(known: dict[matching.Tokens, np.ndarray]) -> list[list[float]]:
        measured.clear()
        found = matching.measure_matching(
            measure_losses, questions, encode, Budget(1e9), lambda _: None, known
        )
        return [[x.base, x.tuned, x.rows] for x in found.measures]

    own = encode([[*row.turns, Message("assistant", row.reference or "")] for row in questions])
    alone = run({})
    assert len(set(measured)) == len(measured)
    assert {tuple(example.ids) for example in own} <= set(measured)
    count = len(measured)
    pair = np.array([1.0, 2.0])
    assert run({matching.tokens_of(x): mean(x) * pair for x in own}) == alone
    assert len(measured) == count - ROWS
    assert not {tuple(example.ids) for example in own} & set(measured)
