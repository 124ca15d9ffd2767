"""Rows that were cut or left out are counted by reason, and listed up to a limit."""

import datasets
import pytest

from data.row_report import BAD, CUT, ISSUE_FEATURES, OTHER, TOO_LONG, RowIssue, RowReport


def report_of(*issues: RowIssue) -> RowReport:
    report = RowReport(read=len(issues))
    for issue in issues:
        report.add(issue)
    report.table = datasets.Dataset.from_list([issue._asdict() for issue in issues], ISSUE_FEATURES)
    return report


def bad(count: int, reason: str, first: int = 1) -> list[RowIssue]:
    return [RowIssue(BAD, "f.jsonl", first + i, reason.format(first + i)) for i in range(count)]


def test_reasons_that_differ_in_numbers_are_one_group_and_the_largest_group_is_first() -> None:
    rows = bad(2, "response: blank", 10) + bad(3, "not JSON: Extra data at column {}")
    listing = report_of(*rows).listing(BAD).splitlines()
    assert listing == [
        "3 × not JSON: Extra data at column N",
        *(f"  f.jsonl:{n}: not JSON: Extra data at column {n}" for n in (1, 2, 3)),
        "2 × response: blank",
        *(f"  f.jsonl:{n}: response: blank" for n in (10, 11)),
    ]


@pytest.mark.parametrize("max_rows", [4, 10, 31])
def test_a_large_group_leaves_room_for_the_small_ones(max_rows: int) -> None:
    report = report_of(*bad(500, "a: blank"), *bad(1, "b: blank", 600), *bad(2, "c: null", 700))
    listing = report.listing(BAD, max_rows)
    for issue in ("600: b: blank", "700: c: null"):
        assert f"  f.jsonl:{issue}" in listing
    assert listing.count("f.jsonl:") <= max(max_rows, 3)
    assert f"… and {500 - listing.count(': a: blank')} more" in listing


def test_kinds_are_counted_separately() -> None:
    issues = [
        RowIssue(CUT, "f", 1, "cut", 5),
        RowIssue(CUT, "f", 2, "cut", 6),
        *bad(1, "a: blank"),
    ]
    report = report_of(*issues, RowIssue(TOO_LONG, "f", 9, "too long by 3", 3))
    assert [report.count(kind) for kind in (CUT, BAD, TOO_LONG)] == [2, 1, 1]
    assert report.tokens == {CUT: 11, BAD: 0, TOO_LONG: 3}
    assert list(report.issues(CUT)) == issues[:2]
    for text in ("2 prompts cut by 11 tokens", "1 left out as too long", "1 bad and skipped"):
        assert text in str(report)


def test_many_different_reasons_are_counted_together() -> None:
    rows = [RowIssue(BAD, "f", i, f"{'x' * i}: unknown") for i in range(1, 1001)]
    report = report_of(*rows)
    assert report.count(BAD) == 1000
    assert report.counts[BAD][OTHER] > 500
    assert report.listing(BAD).startswith(f"{report.counts[BAD][OTHER]} × {OTHER}\n  f:")
