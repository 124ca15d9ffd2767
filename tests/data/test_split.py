"""A split by group puts every question on one side only."""

import numpy as np
import pytest

from data.splitting.split import split_by_group
from data.types import DataError

GROUPS = {
    "all different": np.arange(200),
    "pairs": np.arange(200) // 2,
    "random": np.random.default_rng(0).integers(0, 60, 200),
    "one half, the rest different": np.maximum(np.arange(200) - 100, 0),
}


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_every_row_is_on_one_side_together_with_its_question(
    groups: np.ndarray, fraction: float
) -> None:
    for seed in range(5):
        train, val = split_by_group(groups, fraction, seed)
        assert sorted([*train, *val]) == list(range(len(groups)))
        assert not set(groups[train]) & set(groups[val])
        assert len(train)
        assert len(val)
        assert abs(len(val) - fraction * len(groups)) <= np.bincount(groups).max()
        assert (np.diff(train) > 0).all()
        assert (np.diff(val) > 0).all()


def test_the_seed_determines_the_split() -> None:
    val = [split_by_group(GROUPS["random"], 0.2, seed)[1].tolist() for seed in (1, 1, 2)]
    assert val[0] == val[1] != val[2]


def test_fraction_zero_holds_out_nothing() -> None:
    train, val = split_by_group(np.array([0, 0, 1]), 0, 0)
    assert (train.tolist(), val.tolist()) == ([0, 1, 2], [])


@pytest.mark.parametrize(
    ("groups", "fraction", "message"),
    [
        ([0], 0.5, "1 different questions are too few .* `val_fraction` to 0"),
        ([4, 4, 4], 0.1, "1 different questions are too few"),
        ([0, 1], 1.0, "`val_fraction` is 1.0: choose a share of at least 0 and below 1"),
        ([0, 1], -0.1, "`val_fraction` is -0.1"),
    ],
)
def test_a_split_that_leaves_no_rows_is_refused(
    groups: list[int], fraction: float, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        split_by_group(np.array(groups), fraction, 0)
