"""Duplicate rows are found and kept out of validation."""

import numpy as np
import pytest

from data.splitting.duplicates import find_overlap, find_repeats
from data.splitting.near_duplicates import find_near_duplicates, joined_groups
from data.types import DataError, Message

TEXT = "The bed should be at sixty degrees for PLA, and the nozzle at two hundred and ten."
HAN = "床温应为六十度，喷嘴温度应为二百一十度，这样零件就不会从平台上脱落。"
OTHER = "A sharper chisel needs less force, so the wood tears out less at the end of the cut."


def test_a_row_repeats_only_an_earlier_one() -> None:
    repeats = find_repeats(np.array([5, 7, 5, 5, 7, 9]))
    assert repeats.tolist() == [False, False, True, True, True, False]


TRAIN = np.array([1, 2, 2, 3])
VAL = np.array([9, 2, 8, 8, 7])


@pytest.mark.parametrize(("on_duplicate", "left_out"), [("leave_out", [1, 3]), ("keep", [])])
def test_duplicate_validation_rows_are_left_out_unless_kept(
    on_duplicate: str, left_out: list[int]
) -> None:
    questions = (TRAIN * 10, np.array([90, 20, 10, 10, 30]))
    overlap = find_overlap((TRAIN, VAL), questions, on_duplicate=on_duplicate)
    assert overlap.repeated.tolist() == [2]
    assert overlap.left_out.tolist() == left_out
    assert overlap.shared_questions.tolist() == sorted({1, 2, 3, 4} - set(left_out))
    message = str(overlap)
    assert "1 training rows repeat another" in message
    assert f"{len(overlap.shared_questions)} validation questions also occur in training" in message
    assert ("left out" in message) == bool(left_out)


def test_an_overlap_without_duplicates_prints_nothing() -> None:
    assert str(find_overlap((TRAIN[:2], VAL[:1]), (TRAIN[:2], VAL[:1]))) == ""


def test_near_duplicates_of_training_rows_are_listed() -> None:
    near = np.array([0, 0, 2, 3]), np.arange(5)
    overlap = find_overlap((TRAIN, VAL), (TRAIN, VAL), near)
    assert overlap.near_duplicates.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("val", "on_duplicate", "reason"),
    [
        (
            TRAIN,
            "leave_out",
            "every validation row is also a training row.* `val_path`.* `on_duplicate`",
        ),
        (VAL, "fix", "`on_duplicate` is 'fix': choose leave_out or keep"),
    ],
)
def test_an_overlap_that_leaves_no_validation_rows_is_refused(
    val: np.ndarray, on_duplicate: str, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        find_overlap((TRAIN, val), (TRAIN, val), on_duplicate=on_duplicate)


def conversation(answer: str, system: str = "") -> list[Message]:
    first = [Message("system", system)] if system else []
    return [*first, Message("user", "What now?"), Message("assistant", answer)]


NEAR = {
    "equal": (TEXT, TEXT, True),
    "case and space": (TEXT, TEXT.upper().replace(" ", "\n"), True),
    "a word": (TEXT, TEXT.replace("sixty", "fifty"), True),
    "a letter in Chinese": (HAN + "是", HAN + "不", True),
    "another text": (TEXT, OTHER, False),
}  # fmt: skip


@pytest.mark.parametrize("name", NEAR)
def test_texts_that_share_most_of_their_pieces_are_near_duplicates(name: str) -> None:
    first, second, same = NEAR[name]
    rows = [conversation(first), conversation(OTHER * 2), conversation(second)]
    assert (find_near_duplicates(rows, 0.7)[2] == 0) == same


def test_system_turns_are_ignored() -> None:
    rows = [conversation(text, system=TEXT * 20) for text in (TEXT, OTHER)]
    assert find_near_duplicates(rows, 0.7).tolist() == [0, 1]


def test_a_higher_threshold_finds_fewer_near_duplicates() -> None:
    changed = TEXT.replace("PLA", "ABS").replace("sixty", "eighty")
    rows = [conversation(TEXT), conversation(changed)]
    assert find_near_duplicates(rows, 0.3).tolist() == [0, 0]
    assert find_near_duplicates(rows, 0.95).tolist() == [0, 1]


def test_near_duplicates_have_at_least_the_given_share_in_common() -> None:
    """The index also returns texts that have less in common; there are some among so many."""
    random = np.random.default_rng(0)
    words = [f"word{i}" for i in random.integers(1000, 9999, 100)]
    texts = [" ".join(words)]
    for _ in range(300):
        changed = [f"{i}" if random.random() < 0.12 else word for i, word in enumerate(words)]
        texts.append(" ".join(changed))
    found = find_near_duplicates([conversation(text) for text in texts], 0.8)
    pieces = [{text[i : i + 5] for i in range(len(text) - 4)} for text in texts]
    shares = [len(a & pieces[i]) / len(a | pieces[i]) for a, i in zip(pieces, found, strict=True)]
    assert min(shares) > 0.7
    assert any(share < 1 for share in shares)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 80])
def test_a_threshold_outside_zero_to_one_is_refused(threshold: float) -> None:
    with pytest.raises(DataError, match=r"`near_duplicates` is .*: choose a share between 0 and 1"):
        find_near_duplicates([conversation(TEXT)], threshold)


def test_groupings_are_joined_by_chains() -> None:
    by_question = np.array([1, 1, 2, 3, 4])
    by_text = np.array([0, 1, 1, 3, 4])
    groups = joined_groups(by_question, by_text)
    assert groups[0] == groups[1] == groups[2]
    assert len(set(groups.tolist())) == 3
