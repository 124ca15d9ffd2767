"""A split parts rows by question, so that none stands on both sides."""

import numpy as np
import pytest

from data.split import split
from data.types import DataError

GROUPS = {
    "all different": np.arange(200),
    "pairs": np.arange(200) // 2,
    "drawn": np.random.default_rng(0).integers(0, 60, 200),
    "one half, the rest different": np.maximum(np.arange(200) - 100, 0),
}


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_a_split_keeps_every_row_once_and_a_question_whole(
    groups: np.ndarray, fraction: float
) -> None:
    for seed in range(5):
        train, val = split(groups, fraction, seed)
        assert sorted([*train, *val]) == list(range(len(groups)))
        assert not set(groups[train]) & set(groups[val])
        assert len(train)
        assert len(val)
        assert abs(len(val) - fraction * len(groups)) <= np.bincount(groups).max()
        assert (np.diff(train) > 0).all()
        assert (np.diff(val) > 0).all()


def test_a_seed_decides_the_split() -> None:
    held = [split(GROUPS["drawn"], 0.2, seed)[1].tolist() for seed in (1, 1, 2)]
    assert held[0] == held[1] != held[2]


def test_fraction_zero_holds_nothing_out() -> None:
    train, val = split(np.array([0, 0, 1]), 0, 0)
    assert (train.tolist(), val.tolist()) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("groups", "fraction", "message"),
    [
        ([0], 0.5, "1 different questions are too few .* data.val_fraction to 0"),
        ([4, 4, 4], 0.1, "1 different questions are too few"),
        ([0, 1], 1.0, r"data.val_fraction is 1.0; it must be in \[0, 1\)"),
        ([0, 1], -0.1, "data.val_fraction is -0.1"),
    ],
)
def test_a_split_that_leaves_no_rows_is_refused(
    groups: list[int], fraction: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        split(np.array(groups), fraction, 0)
