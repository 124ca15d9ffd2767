"""Write docs/models.md: python -m tests.families.page [NAME ...]

What becomes of every model type, each made small. Takes minutes; with names, prints these only.
"""

import platform
import sys
import warnings
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import peft
import torch
import transformers

from lit.model.base import quiet
from lit.preflight.coverage import USUAL
from tests.families.others import OTHER_WRAPPERS
from tests.families.record import Record, every, record
from tests.families.wrappers import WRAPPERS

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
HEAD = Path(__file__).with_name("page_head.md").read_text("utf-8")
COLUMNS = ("type", "verdict", "adapters go on", "not adapted", "why row by row", "answers")


def line(found: Record) -> str:
    """The row of a type in the table."""
    left = {kind: share for kind, share in found.left.items() if kind not in USUAL}
    named = ", ".join(f"{kind} {share:.0%}" for kind, share in left.items() if share >= 0.01)
    # The run prints the rest, which depends on the machine.
    reason = found.row_by_row.removeprefix(f"{found.model} ").partition(" (")[0]
    reason = reason.partition(" by ")[0].replace("cannot be packed: ", "")
    answers = "" if found.refused else "one at a time" if found.one_at_a_time else "in batches"
    if any("generate" in lack for lack in found.lacks):
        answers = "none"
    cells = (found.name, found.verdict, ", ".join(found.layers), named, reason, answers)
    return table_row(cells)


def table_row(cells: Iterable[str]) -> str:
    """A row of a table in Markdown."""
    return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |\n"


def write(records: Iterable[Record]) -> str:
    """The page of some records."""
    records = list(records)
    verdicts = [found.verdict for found in records]
    text = HEAD.format(
        count=len(records),
        date=date.today().isoformat(),
        python=platform.python_version(),
        torch=torch.__version__.partition("+")[0],
        transformers=transformers.__version__,
        peft=peft.__version__,
        right=verdicts.count("right"),
        row_by_row=verdicts.count("right, row by row"),
        part=sum(verdict.startswith("in part") for verdict in verdicts),
        refused=sum(verdict.startswith("refused") for verdict in verdicts),
    )
    sees = {*WRAPPERS, *OTHER_WRAPPERS}
    dashes = table_row(["---"] * len(COLUMNS))
    for title, wanted in (("Text", False), ("Text beside pictures or sound", True)):
        rows = "".join(line(found) for found in records if (found.name in sees) is wanted)
        text += f"\n## {title}\n\n{table_row(COLUMNS)}{dashes}{rows}"
    return text


def main(names: list[str]) -> int:
    """Write the page, or print the rows of some types; 1 if one of them is wrong."""
    quiet()
    warnings.filterwarnings("ignore")
    records = []
    for name in names or every():
        records.append(record(name))
        print(f"{name}: {records[-1].verdict}", file=sys.stderr, flush=True)
    if names:
        print("".join(map(line, records)), end="")
    else:
        PAGE.write_text(write(records), encoding="utf-8")
    wrong = [found.name for found in records if found.faults]
    if wrong:
        print(f"wrong: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
