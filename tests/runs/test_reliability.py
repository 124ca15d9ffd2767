"""docs/reliability.md lists tests that exist, and every test of faults."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")


def test_every_test_on_the_page_exists() -> None:
    names = re.findall(r"`(test_\w+)`", PAGE)
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(names) > 20
    assert not [name for name in names if f"def {name}(" not in sources]


def test_every_promise_names_a_test() -> None:
    lines = PAGE.partition("## How")[0].splitlines()
    rows = [line for line in lines if line.startswith("| ") and line != "| promise | test |"]
    assert len(rows) > 20
    assert all("`test_" in row for row in rows)


def test_every_fault_test_is_on_the_page() -> None:
    faults = (ROOT / "tests" / "runs" / "test_faults.py").read_text("utf-8")
    assert not [name for name in re.findall(r"def (test_\w+)\(", faults) if name not in PAGE]
