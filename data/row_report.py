"""What became of every row: each that was cut or left out is listed, with why and by how much."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow
from pyarrow import compute

BAD, TOO_LONG, CUT = "bad", "too long", "cut"
LISTED_ROWS = 100
DIFFERENT, OTHER = 200, "other reasons"
NUMBER = re.compile(r"\d+")
ISSUES = datasets.Features(
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
    """By how many it was cut, or is too long."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"

    @property
    def group(self) -> str:
        """The reason without its numbers, by which issues are counted together."""
        return NUMBER.sub("N", self.reason)


@dataclass
class RowReport:
    """What became of the rows: used + bad + too long == read.

    Args:
        files: Every file, and how it was read where that had to be found out.
        unread: Files that could not be read whole, each with its line and why.
        counts: Entries by kind and group.
        tokens: Tokens by kind.
        table: The issues themselves.
    """

    files: list[str] = field(default_factory=list)
    read: int = 0
    used: int = 0
    unread: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    table: datasets.Dataset | None = None

    def add(self, issue: RowIssue) -> None:
        """Count an issue."""
        groups = self.counts.setdefault(issue.kind, {})
        # Every row can be wrong in its own way.
        group = issue.group if issue.group in groups or len(groups) < DIFFERENT else OTHER
        groups[group] = groups.get(group, 0) + 1
        self.tokens[issue.kind] = self.tokens.get(issue.kind, 0) + issue.tokens

    def count(self, kind: str) -> int:
        """How many rows are of a kind."""
        return sum(self.counts.get(kind, {}).values())

    def issues(self, kind: str) -> Iterator[RowIssue]:
        """Every row of a kind, in the order of the files."""
        for record in self.table or []:
            if record["kind"] == kind:
                yield RowIssue(**record)

    def beyond(self) -> np.ndarray:
        """By how many tokens rows are too long, of each that was cut or left out for that."""
        if self.table is None:
            return np.zeros(0, dtype=np.int64)
        kinds, tokens = (self.table.data.column(name) for name in ("kind", "tokens"))
        return tokens.filter(compute.is_in(kinds, pyarrow.array([CUT, TOO_LONG]))).to_numpy()

    def listing(self, kind: str, shown: int = LISTED_ROWS) -> str:
        """Rows of a kind, grouped by reason with counts; of each group as many as there is room."""
        groups = dict(sorted(self.counts.get(kind, {}).items(), key=lambda item: -item[1]))
        room = _share(groups, shown)
        lines: dict[str, list[str]] = {group: [] for group in groups}
        for issue in self.issues(kind):
            group = issue.group if issue.group in groups else OTHER
            if len(lines[group]) < room[group]:
                lines[group].append(f"  {issue}")
        parts = []
        for group, count in groups.items():
            parts += [f"{count} × {group}", *lines[group]]
            if count > len(lines[group]):
                parts.append(f"  … and {count - len(lines[group])} more")
        return "\n".join(parts)

    def __str__(self) -> str:
        parts = [f"{self.read} rows read, {self.used} used"]
        if cut := self.count(CUT):
            parts.append(f"{cut} prompts cut by {self.tokens[CUT]} tokens in all")
        if too_long := self.count(TOO_LONG):
            parts.append(f"{too_long} left out as too long")
        if bad := self.count(BAD):
            parts.append(f"{bad} bad and skipped")
        found = [name for name in self.files if ", parted by " in name]
        return "; ".join([", ".join(parts), *found])


def _share(counts: dict[str, int], room: int) -> dict[str, int]:
    """Room for each group: all of it where it is small, and an equal part of what is left."""
    shares = {}
    for place, (group, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[group] = min(count, max(1, room // (len(counts) - place)))
        room -= shares[group]
    return shares
