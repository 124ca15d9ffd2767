"""Count the rows of a source, and list each one that was cut or left out, with the reason."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow
from pyarrow import compute

from data.formats import MISSING_COLUMN, UNKNOWN_KEYS

BAD, TOO_LONG, CUT = "bad", "too long", "cut"
MAX_LISTED_ROWS = 100
MAX_GROUPS, OTHER = 200, "other reasons"
"""Groups of one kind beyond this number are counted together as OTHER."""
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
        """The reason with its numbers replaced; issues of one group are counted together."""
        return NUMBER.sub("N", self.reason)


@dataclass
class RowReport:
    """The numbers of rows, with read == used + bad + too long, and every issue.

    Args:
        separators: The CSV files whose separator was found in the header, each with it.
        read: Rows read.
        used: Rows that became examples, cut ones included.
        unreadable: Why files could not be read to their end, with file and line.
        counts: Number of issues by kind and group.
        tokens: Sum of the issues' tokens by kind.
        table: The issues.
        cache_damaged: Whether the cached tokens were damaged and made again.
    """

    separators: list[str] = field(default_factory=list)
    read: int = 0
    used: int = 0
    unreadable: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    table: datasets.Dataset | None = None
    cache_damaged: bool = False

    def add(self, issue: RowIssue) -> None:
        """Count an issue."""
        groups = self.counts.setdefault(issue.kind, {})
        # A reason can quote the row, so every row may have a group of its own.
        group = issue.group if issue.group in groups or len(groups) < MAX_GROUPS else OTHER
        groups[group] = groups.get(group, 0) + 1
        self.tokens[issue.kind] = self.tokens.get(issue.kind, 0) + issue.tokens

    def count(self, kind: str) -> int:
        """Return the number of issues of a kind."""
        return sum(self.counts.get(kind, {}).values())

    def issues(self, kind: str) -> Iterator[RowIssue]:
        """Yield the issues of a kind, in the order of the files."""
        for record in self.table or []:
            if record["kind"] == kind:
                yield RowIssue(**record)

    def excess_tokens(self) -> np.ndarray:
        """Return the tokens over the limit, (n,), of each row that was cut or is too long."""
        if self.table is None:
            return np.zeros(0, dtype=np.int64)
        kinds, tokens = (self.table.data.column(name) for name in ("kind", "tokens"))
        return tokens.filter(compute.is_in(kinds, pyarrow.array([CUT, TOO_LONG]))).to_numpy()

    def listing(self, kind: str, max_rows: int = MAX_LISTED_ROWS) -> str:
        """List issues of a kind, grouped by reason with counts.

        Args:
            kind: BAD, TOO_LONG or CUT.
            max_rows: Rows to list; at least one of each group is listed all the same.
        """
        groups = dict(sorted(self.counts.get(kind, {}).items(), key=lambda item: -item[1]))
        limits = _share_lines(groups, max_rows)
        lines: dict[str, list[str]] = {group: [] for group in groups}
        for issue in self.issues(kind):
            group = issue.group if issue.group in groups else OTHER
            if len(lines[group]) < limits[group]:
                lines[group].append(f"  {issue}")
        parts = []
        for group, count in groups.items():
            parts += [f"{count} × {group}", *lines[group]]
            if count > len(lines[group]):
                parts.append(f"  … and {count - len(lines[group])} more")
        return "\n".join(parts)

    def problems(self, source: str, on_bad_row: str, truncation: str, max_length: int) -> list[str]:
        """Return why the rows cannot be used as they are, each with what to do.

        Args:
            source: The source, as messages name it.
            on_bad_row, truncation, max_length: As in ``data.store.build_store``.
        """
        problems = [*self.unreadable]
        bad, too_long = self.count(BAD), self.count(TOO_LONG)
        if bad and on_bad_row == "error":
            problems += [
                f"{bad} of {self.read} rows of {source} are bad:\n{self.listing(BAD)}",
                f"{self._columns_advice()}Fix these rows, or set `on_bad_row` to skip.",
            ]
        if too_long and truncation == "error":
            problems += [
                f"{too_long} of {self.read} rows of {source} are too long:\n"
                f"{self.listing(TOO_LONG)}",
                "Raise `max_length`, or set `truncation` to middle or drop.",
            ]
        if not self.used and not problems:
            first = next((issue for kind in (TOO_LONG, BAD) for issue in self.issues(kind)), None)
            problems += [
                f"no row of {source} is usable with `max_length` {max_length}: {self}. "
                f"The first: {first}. {self._columns_advice()}".rstrip()
            ]
        return problems

    def _columns_advice(self) -> str:
        groups = self.counts.get(BAD, {})
        if any(UNKNOWN_KEYS in group for group in groups):
            return "Set `columns` if the keys of your rows have other names. "
        if any(MISSING_COLUMN in group for group in groups):
            return "Check `columns`: its values must be keys of the rows. "
        return ""

    def __str__(self) -> str:
        counts = [f"{self.read} rows read, {self.used} used"]
        if cut := self.count(CUT):
            counts.append(f"{cut} prompts cut by {self.tokens[CUT]} tokens in total")
        if too_long := self.count(TOO_LONG):
            counts.append(f"{too_long} left out as too long")
        if bad := self.count(BAD):
            counts.append(f"{bad} bad and skipped")
        damage = ["the cached tokens were damaged and made again"] if self.cache_damaged else []
        return "; ".join([", ".join(counts), *self.separators, *damage])


def _share_lines(counts: dict[str, int], max_lines: int) -> dict[str, int]:
    """Give a small group all its lines, and the large ones equal parts of the rest."""
    shares = {}
    for done, (group, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[group] = min(count, max(1, max_lines // (len(counts) - done)))
        max_lines -= shares[group]
    return shares
