"""Rows that were left out are counted by reason, and as many are shown as there is room for."""

import datasets
import pytest

from data.row_report import BAD, CUT, ENTRIES, OTHER, TOO_LONG, Entry, Ledger


def ledger_of(*entries: Entry) -> Ledger:
    ledger = Ledger(read=len(entries))
    for entry in entries:
        ledger.add(entry)
    ledger.table = datasets.Dataset.from_list([e._asdict() for e in entries], ENTRIES)
    return ledger


def bad(count: int, reason: str, first: int = 1) -> list[Entry]:
    return [Entry(BAD, "f.jsonl", first + i, reason.format(first + i)) for i in range(count)]


def test_reasons_that_differ_in_numbers_are_one_group_and_the_largest_leads() -> None:
    rows = bad(2, "response: blank", 10) + bad(3, "not JSON: Extra data at column {}")
    said = ledger_of(*rows).report(BAD).splitlines()
    assert said == [
        "3 × not JSON: Extra data at column N",
        *(f"  f.jsonl:{n}: not JSON: Extra data at column {n}" for n in (1, 2, 3)),
        "2 × response: blank",
        *(f"  f.jsonl:{n}: response: blank" for n in (10, 11)),
    ]


@pytest.mark.parametrize("shown", [4, 10, 31])
def test_a_large_group_leaves_room_for_the_small_ones(shown: int) -> None:
    ledger = ledger_of(*bad(500, "a: blank"), *bad(1, "b: blank", 600), *bad(2, "c: null", 700))
    said = ledger.report(BAD, shown)
    for place in ("600: b: blank", "700: c: null"):
        assert f"  f.jsonl:{place}" in said
    listed = said.count("f.jsonl:")
    assert listed <= max(shown, 3)
    assert f"… and {500 - said.count(': a: blank')} more" in said


def test_kinds_are_counted_apart() -> None:
    entries = [Entry(CUT, "f", 1, "cut", 5), Entry(CUT, "f", 2, "cut", 6), *bad(1, "a: blank")]
    ledger = ledger_of(*entries, Entry(TOO_LONG, "f", 9, "too long by 3", 3))
    assert [ledger.count(kind) for kind in (CUT, BAD, TOO_LONG)] == [2, 1, 1]
    assert ledger.tokens == {CUT: 11, BAD: 0, TOO_LONG: 3}
    assert list(ledger.entries(CUT)) == entries[:2]
    for words in ("2 prompts cut by 11 tokens", "1 left out as too long", "1 bad and skipped"):
        assert words in str(ledger)


def test_reasons_without_end_are_counted_together() -> None:
    rows = [Entry(BAD, "f", i, f"{'x' * i}: unknown") for i in range(1, 1001)]
    ledger = ledger_of(*rows)
    assert ledger.count(BAD) == 1000
    assert ledger.counts[BAD][OTHER] > 500
    assert ledger.report(BAD).startswith(f"{ledger.counts[BAD][OTHER]} × {OTHER}\n  f:")
