"""Intervals hold the true difference as often as they say; benchmarks/coverage.py has the table."""

import math

import numpy as np
import pytest

from benchmarks.coverage import binary_coverage, coverage
from lit.measures.intervals import (
    MIN_ROWS,
    Interval,
    paired_interval,
    rows_that_would_show,
    student_t,
)
from lit.measures.measured import Group, Outcome, measure

random = np.random.default_rng(5)


@pytest.mark.parametrize("rows", [10, 15, 40])
@pytest.mark.parametrize(("name", "share"), [("normal", 0.93), ("t3", 0.93), ("lognormal", 0.88)])
def test_an_interval_holds_the_truth_as_often_as_promised(
    name: str, share: float, rows: int
) -> None:
    # 800 data sets know a share of 95% to 0.8%, one standard error.
    found = coverage(name, rows, sets=800)
    assert found["used"] >= share - 0.015
    assert found["used"] >= found["t"] >= found["percentile bootstrap"] - 0.01


@pytest.mark.parametrize(("changed", "gain"), [(0.1, 0.5), (0.4, 0.9)])
def test_an_interval_of_yes_and_no_holds_the_truth(changed: float, gain: float) -> None:
    assert binary_coverage(12, changed, gain, sets=500) >= 0.93


def test_few_rows_have_no_interval_and_no_outcome() -> None:
    values = random.normal(size=MIN_ROWS)
    assert paired_interval(values[1:]) is None
    assert paired_interval(values) is not None
    few = measure(Group.OWN, "x", np.zeros(MIN_ROWS - 1), np.ones(MIN_ROWS - 1), "higher")
    assert few.outcome is Outcome.TOO_FEW


def test_rows_that_all_agree_do_not_claim_a_difference_of_exactly_zero() -> None:
    interval = paired_interval(np.zeros(20), binary=True)
    assert interval is not None
    assert interval.low < -0.05
    assert interval.high > 0.05


@pytest.mark.parametrize("binary", [False, True])
def test_an_interval_turns_with_the_sign_of_the_difference(binary: bool) -> None:
    values = random.integers(-1, 2, 30) if binary else random.lognormal(size=30)
    one, other = (paired_interval(x, binary=binary) for x in (values, -values))
    assert one is not None
    assert other is not None
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_mostly_equal_rows_have_a_finite_interval() -> None:
    # A bootstrap sample of equal rows has no standard error.
    values = np.zeros(34)
    values[:2] = 0.3, 0.5
    interval = paired_interval(values)
    assert interval is not None
    assert -1 < interval.low <= 0 < interval.high < 1


def test_more_rows_than_are_resampled_give_the_t_interval() -> None:
    values = random.normal(0.1, 1, 5000)
    interval = paired_interval(values)
    assert interval is not None
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 5000**0.5, 0.01)


@pytest.mark.parametrize(("freedom", "quantile"), [(9, 2.262157), (29, 2.045230), (200, 1.971896)])
def test_students_quantile_is_that_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=2e-4)


def test_four_times_the_rows_halve_an_interval() -> None:
    assert rows_that_would_show(0.1, Interval(-0.1, 0.3), 30) == 120
    assert rows_that_would_show(-0.1, Interval(-0.3, 0.1), 30) == 120
    assert rows_that_would_show(0.0, Interval(-0.1, 0.1), 30) is None
    assert rows_that_would_show(1e-9, Interval(-0.1, 0.1), 30) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_an_outcome(value: float) -> None:
    tuned = np.ones(20)
    tuned[3] = value
    for binary in (False, True):
        found = measure(Group.OWN, "x", np.ones(20), tuned, "higher", binary=binary)
        assert found.outcome is Outcome.NOT_FINITE
