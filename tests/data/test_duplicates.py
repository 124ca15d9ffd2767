"""What stands twice is found, and kept out of the side that measures."""

import numpy as np
import pytest

from data.duplicates import find_overlap, repeats
from data.near_duplicates import find_near_duplicates, joined_groups
from data.types import DataError, Message

TEXT = "The bed should be at sixty degrees for PLA, and the nozzle at two hundred and ten."
HAN = "床温应为六十度，喷嘴温度应为二百一十度，这样零件就不会从平台上脱落。"
OTHER = "A sharper chisel needs less force, so the wood tears out less at the end of the cut."


def test_a_row_repeats_only_an_earlier_one() -> None:
    assert repeats(np.array([5, 7, 5, 5, 7, 9])).tolist() == [False, False, True, True, True, False]


TRAIN = np.array([1, 2, 2, 3])
VAL = np.array([9, 2, 8, 8, 7])


@pytest.mark.parametrize(("on_duplicate", "left_out"), [("leave_out", [1, 3]), ("keep", [])])
def test_validation_rows_that_are_duplicates_are_left_out_unless_told(
    on_duplicate: str, left_out: list[int]
) -> None:
    questions = (TRAIN * 10, np.array([90, 20, 10, 10, 30]))
    found = find_overlap((TRAIN, VAL), questions, on_duplicate=on_duplicate)
    assert found.repeated.tolist() == [2]
    assert found.left_out.tolist() == left_out
    assert found.asked.tolist() == sorted({1, 2, 3, 4} - set(left_out))
    said = str(found)
    assert "1 training rows repeat another" in said
    assert f"{len(found.asked)} validation questions are asked in training too" in said
    assert ("left out" in said) == bool(left_out)


def test_nothing_is_said_where_nothing_stands_twice() -> None:
    assert str(find_overlap((TRAIN[:2], VAL[:1]), (TRAIN[:2], VAL[:1]))) == ""


def test_rows_near_a_training_row_are_named() -> None:
    found = find_overlap((TRAIN, VAL), (TRAIN, VAL), near=(np.array([0, 0, 2, 3]), np.arange(5)))
    assert found.near.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("val", "on_duplicate", "reason"),
    [
        (TRAIN, "leave_out", "every validation row stands among the training rows"),
        (VAL, "mend", "data.on_duplicate is 'mend'; there are leave_out, keep"),
    ],
)
def test_an_overlap_that_leaves_nothing_is_refused(
    val: np.ndarray, on_duplicate: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        find_overlap((TRAIN, val), (TRAIN, val), on_duplicate=on_duplicate)


def conversation(answer: str, system: str = "") -> list[Message]:
    told = [Message("system", system)] if system else []
    return [*told, Message("user", "What now?"), Message("assistant", answer)]


NEAR = {
    "equal": (TEXT, TEXT, True),
    "case and space": (TEXT, TEXT.upper().replace(" ", "\n"), True),
    "a word": (TEXT, TEXT.replace("sixty", "fifty"), True),
    "a letter in Chinese": (HAN + "是", HAN + "不", True),
    "another text": (TEXT, OTHER, False),
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR)
def test_texts_that_share_most_of_their_pieces_are_near(name: str) -> None:
    first, second, same = NEAR[name]
    rows = [conversation(first), conversation(OTHER * 2), conversation(second)]
    assert (find_near_duplicates(rows, 0.7)[2] == 0) == same


def test_a_system_turn_makes_no_rows_near() -> None:
    rows = [conversation(text, system=TEXT * 20) for text in (TEXT, OTHER)]
    assert find_near_duplicates(rows, 0.7).tolist() == [0, 1]


def test_a_higher_threshold_finds_fewer() -> None:
    changed = TEXT.replace("PLA", "ABS").replace("sixty", "eighty")
    rows = [conversation(TEXT), conversation(changed)]
    assert find_near_duplicates(rows, 0.3).tolist() == [0, 0]
    assert find_near_duplicates(rows, 0.95).tolist() == [0, 1]


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 80])
def test_a_threshold_is_a_share(threshold: float) -> None:
    with pytest.raises(DataError, match=r"data.near_duplicates is .*; it must be in"):
        find_near_duplicates([conversation(TEXT)], threshold)


def test_groupings_join_by_chains() -> None:
    by_question = np.array([1, 1, 2, 3, 4])
    by_text = np.array([0, 1, 1, 3, 4])
    groups = joined_groups(by_question, by_text)
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups.tolist())) == 3
