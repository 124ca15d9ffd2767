"""docs/reliability.md names tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "reliability.md").read_text("utf-8"))
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 20
    assert not [name for name in named if f"def {name}(" not in sources]


def test_every_row_of_what_is_promised_names_a_test() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text("utf-8").partition("## How")[0]
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and "promised |" not in line
    ]
    assert all("`test_" in row for row in rows)


def test_every_fault_test_stands_on_the_page() -> None:
    faults = (ROOT / "tests" / "runs" / "test_faults.py").read_text("utf-8")
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    assert not [name for name in re.findall(r"def (test_\w+)\(", faults) if name not in page]
