"""How far apart another seed moves the losses of equal settings."""

import math

import numpy as np
import pytest

from lit.measures.differences import SeedSpread

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


def test_the_spread_is_pooled_over_settings_that_ran_twice() -> None:
    spread = SeedSpread.of([(1.0, 1.2), (3.0,), (2.0, 2.4)])
    assert spread.freedom == 2
    assert spread.value == pytest.approx(math.sqrt((0.02 + 0.08) / 2))
    assert SeedSpread.of([(1.0,), (2.0,)]).reach(1, 1, [1, 1]) == 0


def test_equal_settings_are_within_reach_in_19_of_20_searches() -> None:
    random = np.random.default_rng(1)
    counts, within, searches = [2, 2, 1, 2], 0, 600
    for _ in range(searches):
        runs = [random.normal(size=count) for count in counts]
        spread = SeedSpread.of([list(map(float, one)) for one in runs])
        means = [one.mean() for one in runs]
        within += all(
            abs(means[i] - means[j]) <= spread.reach(counts[i], counts[j], counts)
            for i in range(4)
            for j in range(i)
        )
    assert within / searches == pytest.approx(0.95, abs=0.025)
