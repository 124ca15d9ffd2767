"""Rows that were cut or left out are counted by reason, and listed up to a limit."""

import datasets
import pytest

from data.report.row_issue import BAD, CUT, ISSUE_FEATURES, TOO_LONG, RowIssue
from data.report.row_report import OTHER, RowReport


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
        "3 × not JSON: Extra data at column 1 to 3",
        "  f.jsonl:1: not JSON: Extra data at column 1",
        "  … and in line 2, 3",
        "2 × response: blank",
        "  f.jsonl:10: response: blank",
        "  … and in line 11",
    ]


@pytest.mark.parametrize(
    ("reasons", "title"),
    [
        (["3 fields, but the header has 2"] * 2, "3 fields, but the header has 2"),
        (["4 fields, but the header has 2", "13 fields, but the header has 2"],
         "4 to 13 fields, but the header has 2"),
        (["a: blank"], "a: blank"),
        (["'user1' is unknown", "'user12' is unknown"], "'userN' is unknown"),
        (["007 and 7", "7 and 7"], "007 and 7"),
    ],
)  # fmt: skip
def test_numbers_in_which_reasons_of_a_group_agree_are_shown_and_others_as_a_range(
    reasons: list[str], title: str
) -> None:
    report = report_of(*(RowIssue(BAD, "f", i, reason) for i, reason in enumerate(reasons)))
    assert report.listing(BAD).splitlines()[0] == f"{len(reasons)} × {title}"


def test_a_large_group_leaves_room_for_the_small_ones() -> None:
    report = report_of(*bad(500, "a: blank"), *bad(1, "b: blank", 600), *bad(2, "c: null", 700))
    listing = report.listing(BAD)
    for issue in ("600: b: blank", "700: c: null"):
        assert f"  f.jsonl:{issue}" in listing
    assert len(listing.splitlines()) == 8
    assert "… and in line 2, 3, 4, 5, 6, 7, 8, 9 and 491 more" in listing


def test_what_all_rows_of_a_file_have_in_common_is_said_once() -> None:
    report = report_of(*bad(500, "a: blank"))
    report.files = {"f.jsonl": 500}
    assert report.listing(BAD) == "500 × a: blank\n  f.jsonl: every row"


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
