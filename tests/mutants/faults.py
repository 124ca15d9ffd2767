"""Plant a fault in one line of a source file."""

from pathlib import Path
from typing import NamedTuple


class Mutant(NamedTuple):
    """A fault in one line, and the tests that find it."""

    area: str
    file: str
    line: str
    """The line without its indent; it appears once in the file."""
    replacement: str
    tests: tuple[str, ...]
    """Test files or node ids; the fault must make one of their tests fail."""


def find_line(text: str, line: str) -> int:
    """Return the index of the one line of a text that equals a line, except for its indent.

    Raises:
        ValueError: There is no such line, or more than one.
    """
    indices = [i for i, other in enumerate(text.splitlines()) if other.strip() == line]
    if len(indices) != 1:
        raise ValueError(f"the text has {len(indices)} lines like this one, not 1: {line}")
    return indices[0]


def plant(text: str, mutant: Mutant) -> str:
    """Return the text of a file with a fault in it.

    Raises:
        ValueError: The line does not appear once.
        SyntaxError: The result is not Python.
    """
    lines = text.splitlines(keepends=True)
    index = find_line(text, mutant.line)
    lines[index] = lines[index].replace(mutant.line, mutant.replacement)
    faulty = "".join(lines)
    compile(faulty, mutant.file, "exec")
    return faulty


def line_number(root: Path, mutant: Mutant) -> int:
    """Return the number of a fault's line in its file, from 1."""
    return find_line((root / mutant.file).read_text(encoding="utf-8"), mutant.line) + 1
