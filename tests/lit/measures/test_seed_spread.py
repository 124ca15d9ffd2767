"""How far apart another seed moves the losses of equal settings."""

import math

import numpy as np
import pytest

from lit.measures.differences import SeedSpread, separate_seeds

STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 10: 2.228}
"""The 97.5% quantiles by degrees of freedom."""
TUKEY = {(3, 3): 5.910, (4, 4): 5.757, (6, 10): 4.912}
"""The 95% quantiles of the studentized range by settings and degrees of freedom."""


@pytest.mark.parametrize(("freedom", "quantile"), STUDENT.items())
def test_two_settings_are_as_far_apart_as_student_says(freedom: int, quantile: float) -> None:
    reach = SeedSpread(0.01, freedom).reach(2, 2, [2, 2])
    assert reach == pytest.approx(quantile * 0.01, rel=0.03)


@pytest.mark.parametrize(("shape", "quantile"), TUKEY.items())
def test_more_settings_are_as_far_apart_as_tukey_says(
    shape: tuple[int, int], quantile: float
) -> None:
    settings, freedom = shape
    reach = SeedSpread(0.01, freedom).reach(2, 2, [2] * settings)
    assert reach == pytest.approx(quantile * 0.01 / math.sqrt(2), rel=0.03)


def test_what_a_seed_changes_for_all_alike_is_left_out() -> None:
    labels = np.array([2.0, 3.0])
    first, second = np.array([4.0, 9.0]), np.array([6.0, 3.0])
    worse = np.array([1.0, 1.5])  # by 0.5 per label
    groups = [[(1, first), (2, first + worse)], [(1, second), (2, second + worse)], [(2, worse)]]
    means, spread = separate_seeds(groups, labels)
    assert spread.freedom == 1
    assert spread.value == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(means, [first + worse / 2, second + worse / 2, worse / 2])


def test_the_spread_is_that_of_a_run_beyond_settings_and_seeds() -> None:
    random, labels = np.random.default_rng(0), np.ones(1)
    noise = 0.3 * random.normal(size=(200, 5))
    groups = [
        [(seed, np.array([7.0 * n + seed + noise[n, seed]])) for seed in range(5)]
        for n in range(200)
    ]
    _, spread = separate_seeds(groups, labels)
    assert spread.freedom == 199 * 4
    assert spread.value == pytest.approx(0.3, rel=0.08)


@pytest.mark.parametrize(
    "runs", [[[1], [1]], [[1, 2], [1]], [[1], [2]], [[1, 2]], [[1, 1], [1, 1]]]
)
def test_nothing_is_known_until_two_settings_ran_with_the_same_two_seeds(
    runs: list[list[int]],
) -> None:
    groups = [[(seed, np.full(3, seed + n)) for seed in seeds] for n, seeds in enumerate(runs)]
    _, spread = separate_seeds(groups, np.ones(3))
    assert spread.freedom == 0
    assert spread.reach(2, 2, [2, 2]) == 0


def test_equal_settings_are_within_reach_in_19_of_20_searches() -> None:
    random, labels = np.random.default_rng(1), np.ones(1)
    seeds_of, within, searches = [(1, 2), (1, 2), (1,), (1, 2)], 0, 600
    for _ in range(searches):
        order = dict(zip((1, 2), 5 * random.normal(size=2), strict=True))
        groups = [[(x, np.array([order[x] + random.normal()])) for x in own] for own in seeds_of]
        means, spread = separate_seeds(groups, labels)
        counts = [len(own) for own in seeds_of]
        within += all(
            abs(means[i, 0] - means[j, 0]) <= spread.reach(counts[i], counts[j], counts)
            for i in range(4)
            for j in range(i)
        )
    assert within / searches > 0.92
