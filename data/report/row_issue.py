"""A row that was cut or left out, and why."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import datasets

from data.messages import tr
from data.text import replace_surrogates
from data.types import BadRow, Row

BAD, TOO_LONG, CUT = "bad", "too long", "cut"
MAX_REASON_CHARS = 400
"""Longer reasons are shortened: they can quote a row."""
NUMBER = re.compile(r"\d+")
ISSUE_FEATURES = datasets.Features(
    {
        "kind": datasets.Value("string"),
        "file": datasets.Value("string"),
        "line": datasets.Value("int64"),
        "reason": datasets.Value("string"),
        "tokens": datasets.Value("int64"),
    }
)


class RowIssue(NamedTuple):
    """A row that was cut or left out."""

    kind: str
    file: str
    line: int
    reason: str
    tokens: int = 0
    """Tokens that were cut, or that are over the limit."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"

    @property
    def group(self) -> str:
        """The reason without its numbers; issues of one group are counted together."""
        return NUMBER.sub("N", self.reason)


def titles(issues: Iterable[RowIssue]) -> dict[str, str]:
    """Return the reason of each group; numbers that differ in it are shown as a range.

    Such as ``1 to 3 fields, but the header has 2``.
    """
    first: dict[str, str] = {}
    lowest: dict[str, list[int]] = {}
    highest: dict[str, list[int]] = {}
    for issue in issues:
        group, numbers = issue.group, [int(number) for number in NUMBER.findall(issue.reason)]
        first.setdefault(group, issue.reason)
        lowest[group] = [*map(min, lowest.get(group, numbers), numbers)]
        highest[group] = [*map(max, highest.get(group, numbers), numbers)]
    return {
        group: _with_ranges(reason, zip(lowest[group], highest[group], strict=True))
        for group, reason in first.items()
    }


def _with_ranges(reason: str, ranges: Iterator[tuple[int, int]]) -> str:
    def number(match: re.Match[str]) -> str:
        low, high = next(ranges)
        if low == high:
            return match[0]
        inside = reason[: match.start()][-1:].isalnum() or reason[match.end() :][:1].isalnum()
        return "N" if inside else tr("{low} to {high}", low=low, high=high)

    return NUMBER.sub(number, reason)


def make_issue(kind: str, row: Row | BadRow, reason: str, tokens: int = 0) -> RowIssue:
    """Return the issue of a row.

    Args:
        kind: BAD, TOO_LONG or CUT.
        row: The row.
        reason: It can quote the row's keys, which may be of any length and hold any character.
        tokens: Tokens that were cut, or that are over the limit.
    """
    return RowIssue(kind, replace_surrogates(row.file), row.line, printable(reason), tokens)


def printable(text: str) -> str:
    """Return a text in one line of limited length."""
    short = text if len(text) <= MAX_REASON_CHARS else f"{text[:MAX_REASON_CHARS]} …"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in short)
