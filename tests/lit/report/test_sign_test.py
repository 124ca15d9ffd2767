"""The sign test of votes agrees with scipy's."""

import pytest
from scipy.stats import binomtest

from lit.report.sign_test import sign_test


@pytest.mark.parametrize(
    ("wins", "losses"), [(1, 0), (0, 1), (5, 5), (9, 1), (0, 12), (40, 25), (700, 640), (3000, 0)]
)
def test_share_interval_and_p_value_are_those_of_scipy(wins: int, losses: int) -> None:
    ours, theirs = sign_test(wins, losses), binomtest(wins, wins + losses)
    interval = theirs.proportion_ci(method="exact")
    assert ours.votes == wins + losses
    assert ours.share == theirs.statistic
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-6)


def test_without_votes_everything_is_possible() -> None:
    assert sign_test(0, 0) == (0, 0.5, 0.0, 1.0, 1.0)
