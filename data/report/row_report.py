"""Count the rows of a source, and list each one that was cut or left out, with the reason."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import datasets
import numpy as np
import pyarrow
from pyarrow import compute

from data.messages import tr, tr_mark, tr_n
from data.report.row_issue import BAD, CUT, TOO_LONG, RowIssue, titles

MAX_GROUPS, OTHER = 200, tr_mark("other reasons")
"""Groups of one kind beyond this number are counted together as OTHER; ``tr`` shows it."""
MAX_FILES = 10
"""Files that are listed for each reason."""
MAX_LINES = 8
"""Further lines that are listed for each reason and file."""


@dataclass
class RowReport:
    """The numbers of rows, with read == used + bad + too long, and every issue.

    Args:
        read: Rows read.
        used: Rows that became examples, cut ones included.
        examples: The examples; a conversation can become several.
        files: Rows read by file.
        notes: What is to be said of files: how they are written, and what is not read.
        unread: How many rows have a value under each key that is not read, by file.
        changes: How many values were not taken as they are filed, by what was done.
        unknown_keys: The keys of the first row with unknown keys, by file.
        encodings: The likely encoding of files that are in another one than they should be.
        unreadable: Why files could not be read to their end, with file and line.
        counts: Number of issues by kind and group.
        tokens: Sum of the issues' tokens by kind.
        table: The issues.
        cache_damaged: Whether the cached tokens were damaged and made again.
    """

    read: int = 0
    used: int = 0
    examples: int = 0
    files: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unread: dict[str, dict[str, int]] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    unknown_keys: dict[str, list[str]] = field(default_factory=dict)
    encodings: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    table: datasets.Dataset | None = None
    cache_damaged: bool = False

    def add_rows(
        self,
        used: int,
        examples: int,
        files: Counter[str],
        unread: Counter[tuple[str, str]],
        changes: Counter[str],
        unknown_keys: dict[str, list[str]],
    ) -> None:
        """Count rows that were read, ``used`` of which became ``examples``."""
        self.read += files.total()
        self.used += used
        self.examples += examples
        for sums, more in ((self.files, files), (self.changes, changes)):
            for name, count in more.items():
                sums[name] = sums.get(name, 0) + count
        for (file, key), count in unread.items():
            keys = self.unread.setdefault(file, {})
            keys[key] = keys.get(key, 0) + count
        self.unknown_keys = unknown_keys | self.unknown_keys

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

    def titles(self, kind: str) -> dict[str, str]:
        """Return what to call each group of a kind: its reason, with ranges of numbers."""
        groups = self.counts.get(kind, {})
        found = titles(issue for issue in self.issues(kind) if issue.group in groups)
        return {group: found.get(group) or tr(group) for group in groups}

    def listing(self, kind: str) -> str:
        """List issues of a kind: for each reason and file the first row, and further lines.

        What all rows of a file have in common is said once.

        Args:
            kind: BAD, TOO_LONG or CUT.
        """
        groups = dict(sorted(self.counts.get(kind, {}).items(), key=lambda item: -item[1]))
        called = self.titles(kind)
        places: dict[str, dict[str, list[int]]] = {group: {} for group in groups}
        first: dict[tuple[str, str], RowIssue] = {}
        for issue in self.issues(kind):
            group = issue.group if issue.group in groups else OTHER
            places[group].setdefault(issue.file, []).append(issue.line)
            first.setdefault((group, issue.file), issue)
        parts = []
        for group, count in groups.items():
            parts.append(f"{count} × {called[group]}")
            for file, lines in islice(places[group].items(), MAX_FILES):
                if 1 < len(lines) == self.files.get(file) and group != OTHER:
                    parts.append(tr("  {file}: every row", file=file))
                    continue
                parts.append(f"  {first[group, file]}")
                lines = [*dict.fromkeys(lines)]  # a row may have several prompts that are cut
                if others := [str(line) for line in lines[1 : MAX_LINES + 1]]:
                    shown = ", ".join(others)
                    if rest := len(lines) - len(others) - 1:
                        shown = tr("{names} and {rest} more", names=shown, rest=rest)
                    parts.append(tr("  … and in line {lines}", lines=shown))
            if len(places[group]) > MAX_FILES:
                files = len(places[group]) - MAX_FILES
                parts.append(tr_n("  … and in {n} more files", "  … and in {n} more files", files))
        return "\n".join(parts)

    @property
    def unit(self) -> str:
        """What trains and validates: rows, or examples if some rows became several."""
        return "examples" if self.examples > self.used else "rows"

    def lines(self) -> list[str]:
        """Return what else is to be said of the rows: how files are read, and what is not."""
        unread = [
            tr("{file}: not read: {keys}", file=file, keys=", ".join(keys))
            for file, keys in self.unread.items()
        ]
        changes = [tr("{n} {what}", n=n, what=tr(what)) for what, n in self.changes.items() if n]
        return [*self.notes, *unread, *changes]

    def __str__(self) -> str:
        if self.unit == "examples":
            text = tr_mark("{read} rows read, {used} used as {examples} examples")
        else:
            text = tr_mark("{read} rows read, {used} used")
        counts = [tr(text, read=self.read, used=self.used, examples=self.examples)]
        if cut := self.count(CUT):
            counts.append(
                tr(
                    "{cut} prompts cut by {tokens} tokens in total",
                    cut=cut,
                    tokens=self.tokens[CUT],
                )
            )
        if too_long := self.count(TOO_LONG):
            counts.append(tr("{rows} left out as too long", rows=too_long))
        if bad := self.count(BAD):
            counts.append(tr("{rows} bad and skipped", rows=bad))
        damage = [tr("the cached tokens were damaged and made again")] if self.cache_damaged else []
        return "; ".join([", ".join(counts), *damage])
