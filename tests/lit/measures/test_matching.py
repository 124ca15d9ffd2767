"""Matching: which other answers a row's own must beat, and when it does."""

import numpy as np
import pytest

from data.types import Example, Message, RowError
from lit.measures.matching import EMPTY, NEAREST, SIMILAR, WRONG, Case, Key, Matching
from lit.measures.sample import fair_order

ROWS = [
    ("How warm is the bed for PLA?", "Sixty."),
    ("How warm is the bed for ABS?", "A hundred degrees."),
    ("Which glue holds nylon?", "None."),
    ("Which glue holds PETG?", "A toughened epoxy."),
    ("Who sells nozzles?", "Shops!"),
]


def encode(conversations: list[list[Message]]) -> list[Example | RowError]:
    return [
        RowError("too long") if turns[-1].content == "long" else Example([1, 2], [-100, 2])
        for turns in conversations
    ]


def matching(rows: list[tuple[str, str]] = ROWS, wrong: tuple[str, ...] = ()) -> Matching:
    return Matching([Case([Message("user", q)], a, wrong) for q, a in rows], encode)


def test_other_answers_are_of_equal_length_and_of_similar_questions() -> None:
    found = matching().others
    assert found[NEAREST][0][:2] == ("Shops!", "None.")
    assert found[SIMILAR][0][0] == "A hundred degrees."
    assert found[SIMILAR][2][0] == "A toughened epoxy."
    for kind in (NEAREST, SIMILAR):
        for (_, own), others in zip(ROWS, found[kind], strict=True):
            assert own not in others
            assert len(set(others)) == len(others) == 3


def test_equal_answers_are_no_others_and_guessing_is_more_often_right() -> None:
    few = matching([("a?", "yes"), ("b?", "no"), ("c?", "yes"), ("d?", "no")])
    assert few.others[SIMILAR] == [("no",), ("yes",), ("no",), ("yes",)]
    assert few.chance(SIMILAR, range(4)) == 0.5
    assert matching().chance(SIMILAR, range(5)) == 0.25
    assert matching([("a?", "yes"), ("b?", "yes")]).others[NEAREST] == [(), ()]


def scored(
    one: Matching, after: dict[str, float], alone: dict[str, float]
) -> dict[Key, np.ndarray]:
    """Return means of two models: the second has the scores turned."""
    means = {}
    for question, text in one.keys(0):
        value = alone[text] if question == EMPTY else after[text]
        means[question, text] = np.array([value, -value])
    return means


def test_an_answer_that_is_likely_after_any_question_wins_nothing() -> None:
    one = matching(wrong=("false",))
    texts = [text for question, text in one.keys(0) if question == 0]
    after, alone = dict.fromkeys(texts, -3.0), dict.fromkeys(texts, -3.0)
    after["Sixty."], alone["Sixty."] = -2.5, -4.0
    after["Shops!"], alone["Shops!"] = -0.5, -0.4
    after["false"], alone["false"] = -2.0, -2.0
    means = scored(one, after, alone)
    for kind in (NEAREST, SIMILAR, WRONG):
        assert one.right(kind, 0, means).tolist() == [1, 0]  # type: ignore[union-attr]
    after["false"] = -0.1
    assert one.right(WRONG, 0, scored(one, after, alone)).tolist() == [0, 1]  # type: ignore[union-attr]
    after["false"] = float("nan")
    assert np.isnan(one.right(WRONG, 0, scored(one, after, alone))).all()  # type: ignore[arg-type]


def test_a_row_with_an_answer_that_cannot_be_encoded_is_not_counted() -> None:
    one = matching([*ROWS[:3], ("Which glue holds PLA?", "long")])
    keys = [key for row in range(4) for key in one.keys(row)]
    examples = one.examples(keys)
    assert len(examples) < len(set(keys))
    means = {key: np.zeros(1) for key in examples}
    assert one.right(NEAREST, 3, means) is None
    assert one.right(WRONG, 0, means) is None


@pytest.mark.parametrize("count", [10, 40])
def test_every_beginning_of_the_order_is_a_random_sample(count: int) -> None:
    first = [fair_order(100, seed)[:count] for seed in range(2000)]
    chosen = np.bincount(np.concatenate(first), minlength=100) / 2000
    assert sorted(fair_order(100)) == list(range(100))
    assert chosen == pytest.approx(np.full(100, count / 100), abs=0.06)
    assert fair_order(100) == fair_order(100)
