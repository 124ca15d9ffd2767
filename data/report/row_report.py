"""Count the rows of a source, and list each one that was cut or left out, with the reason."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import datasets
import numpy as np
import pyarrow
from pyarrow import compute

from data.formats.guess import guess_columns, is_headless
from data.formats.rows import MISSING_COLUMN, UNKNOWN_KEYS
from data.report.refusal import RefusedError, as_flag
from data.report.row_issue import BAD, CUT, TOO_LONG, RowIssue, titles

MAX_GROUPS, OTHER = 200, "other reasons"
"""Groups of one kind beyond this number are counted together as OTHER."""
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
        return {group: found.get(group, group) for group in groups}

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
                    parts.append(f"  {file}: every row")
                    continue
                parts.append(f"  {first[group, file]}")
                lines = [*dict.fromkeys(lines)]  # a row may have several prompts that are cut
                if others := [str(line) for line in lines[1 : MAX_LINES + 1]]:
                    more = f" and {rest} more" if (rest := len(lines) - len(others) - 1) else ""
                    parts.append(f"  … and in line {', '.join(others)}{more}")
            if len(places[group]) > MAX_FILES:
                parts.append(f"  … and in {len(places[group]) - MAX_FILES} more files")
        return "\n".join(parts)

    def check(self, source: str, on_bad_row: str, truncation: str, max_length: int) -> None:
        """Check that the rows can be used as they are.

        Args:
            source: The source, as messages name it.
            on_bad_row, truncation, max_length: As in ``data.store.build_store``.

        Raises:
            RefusedError: They cannot; it has every reason, and what to type.
        """
        problems, flags = [*self.unreadable], {}
        if self.encodings:
            names = set(self.encodings.values())
            flags["encoding"] = names.pop() if len(names) == 1 else "auto"
        bad, too_long = self.count(BAD), self.count(TOO_LONG)
        if bad and (on_bad_row == "error" or not self.used):
            problems.append(self._describe(BAD, source, "bad"))
            problems += self._columns_advice(flags)
            if on_bad_row == "error" and self.used and "columns" not in flags:
                flags["on_bad_row"] = "skip"
        if too_long and (truncation == "error" or not self.used):
            problems += [
                self._describe(TOO_LONG, source, f"too long for `max_length` {max_length}"),
                "Raise `max_length`"
                + (", or set `truncation` to middle or drop." if truncation == "error" else "."),
            ]
        if problems:
            raise RefusedError(problems, flags)

    def _describe(self, kind: str, source: str, what: str) -> str:
        count, groups = self.count(kind), self.counts[kind]
        if len(groups) == len(self.files) == 1 < count == self.read:
            return f"all {count} rows of {source} are {what}: {''.join(self.titles(kind).values())}"
        return f"{count} of {self.read} rows of {source} are {what}:\n{self.listing(kind)}"

    def _columns_advice(self, flags: dict[str, str]) -> list[str]:
        """Propose ``columns`` for files of unknown keys; return what cannot be typed as a flag."""
        if any(MISSING_COLUMN in group for group in self.counts[BAD]):
            return ["Check `columns`: its values must be keys of the rows."]
        unknown = Counter(x.file for x in self.issues(BAD) if UNKNOWN_KEYS in x.reason)
        # Few such rows in a file lack a field; many have other names for it.
        files = [file for file, count in unknown.items() if 2 * count > self.files[file]]
        guesses = [guess_columns(self.unknown_keys[file]) for file in files]
        if guesses and guesses[0] and all(guess == guesses[0] for guess in guesses):
            flags["columns"] = as_flag(guesses[0])
        elif guesses:
            return ["Set `columns` to your names: '{question: NAME, answer: NAME}'."]
        return [
            f"{file} seems to have no header. Add a first line of names such as question and "
            "answer, or name its columns by number."
            for file in files
            if is_headless(self.unknown_keys[file])
        ]

    @property
    def unit(self) -> str:
        """What trains and validates: rows, or examples if some rows became several."""
        return "examples" if self.examples > self.used else "rows"

    def lines(self) -> list[str]:
        """Return what else is to be said of the rows: how files are read, and what is not."""
        unread = [f"{file}: not read: {', '.join(keys)}" for file, keys in self.unread.items()]
        return [*self.notes, *unread, *(f"{n} {what}" for what, n in self.changes.items() if n)]

    def __str__(self) -> str:
        several = f" as {self.examples} examples" if self.unit == "examples" else ""
        counts = [f"{self.read} rows read, {self.used} used{several}"]
        if cut := self.count(CUT):
            counts.append(f"{cut} prompts cut by {self.tokens[CUT]} tokens in total")
        if too_long := self.count(TOO_LONG):
            counts.append(f"{too_long} left out as too long")
        if bad := self.count(BAD):
            counts.append(f"{bad} bad and skipped")
        damage = ["the cached tokens were damaged and made again"] if self.cache_damaged else []
        return "; ".join([", ".join(counts), *damage])
