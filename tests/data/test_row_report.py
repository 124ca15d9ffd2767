"""Rows that were left out are counted by reason, and as many are shown as there is room for."""

import datasets
import pytest

from data.row_report import BAD, CUT, ISSUES, OTHER, TOO_LONG, RowIssue, RowReport


def report_of(*issues: RowIssue) -> RowReport:
    report = RowReport(read=len(issues))
    for issue in issues:
        report.add(issue)
    report.table = datasets.Dataset.from_list([e._asdict() for e in issues], ISSUES)
    return report


def bad(count: int, reason: str, first: int = 1) -> list[RowIssue]:
    return [RowIssue(BAD, "f.jsonl", first + i, reason.format(first + i)) for i in range(count)]


def test_reasons_that_differ_in_numbers_are_one_group_and_the_largest_leads() -> None:
    rows = bad(2, "response: blank", 10) + bad(3, "not JSON: Extra data at column {}")
    said = report_of(*rows).listing(BAD).splitlines()
    assert said == [
        "3 × not JSON: Extra data at column N",
        *(f"  f.jsonl:{n}: not JSON: Extra data at column {n}" for n in (1, 2, 3)),
        "2 × response: blank",
        *(f"  f.jsonl:{n}: response: blank" for n in (10, 11)),
    ]


@pytest.mark.parametrize("shown", [4, 10, 31])
def test_a_large_group_leaves_room_for_the_small_ones(shown: int) -> None:
    report = report_of(*bad(500, "a: blank"), *bad(1, "b: blank", 600), *bad(2, "c: null", 700))
    said = report.listing(BAD, shown)
    for place in ("600: b: blank", "700: c: null"):
        assert f"  f.jsonl:{place}" in said
    listed = said.count("f.jsonl:")
    assert listed <= max(shown, 3)
    assert f"… and {500 - said.count(': a: blank')} more" in said


def test_kinds_are_counted_apart() -> None:
    issues = [
        RowIssue(CUT, "f", 1, "cut", 5),
        RowIssue(CUT, "f", 2, "cut", 6),
        *bad(1, "a: blank"),
    ]
    report = report_of(*issues, RowIssue(TOO_LONG, "f", 9, "too long by 3", 3))
    assert [report.count(kind) for kind in (CUT, BAD, TOO_LONG)] == [2, 1, 1]
    assert report.tokens == {CUT: 11, BAD: 0, TOO_LONG: 3}
    assert list(report.issues(CUT)) == issues[:2]
    for words in ("2 prompts cut by 11 tokens", "1 left out as too long", "1 bad and skipped"):
        assert words in str(report)


def test_reasons_without_end_are_counted_together() -> None:
    rows = [RowIssue(BAD, "f", i, f"{'x' * i}: unknown") for i in range(1, 1001)]
    report = report_of(*rows)
    assert report.count(BAD) == 1000
    assert report.counts[BAD][OTHER] > 500
    assert report.listing(BAD).startswith(f"{report.counts[BAD][OTHER]} × {OTHER}\n  f:")
