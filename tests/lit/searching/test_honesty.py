"""What a search says of drawn losses is right as often as it promises."""

import pytest

from benchmarks.search_honesty import equal_settings, planted, seeds


@pytest.mark.parametrize("noise", ["normal", "t3", "lognormal"])
def test_equal_settings_are_tied_and_the_reported_interval_holds_zero(noise: str) -> None:
    found = equal_settings(settings=8, rows=20, noise=noise, searches=60)
    assert found["reported"] >= 18 / 20
    assert found["tied"] >= 8 / 10
    assert found["better"] <= 2 / 20
    assert found["flattery"] > 0


def test_the_choosing_rows_would_claim_what_the_reporting_rows_do_not() -> None:
    found = equal_settings(settings=24, rows=20, noise="normal", searches=150)
    assert found["chosen"] < 18 / 20 <= found["reported"]


def test_better_settings_are_found() -> None:
    found = planted(settings=8, rows=40, gain=0.1, searches=40)
    assert found["found"] >= 8 / 10
    assert found["called"] >= 8 / 10


def test_seeds_that_differ_are_not_taken_for_better_settings() -> None:
    found = seeds(spread=0.03, gain=0.0, rows=60, runs=2, searches=40)
    assert found["better"] <= 4 / 40
    assert found["seeds"] > found["better"]
