"""metrics.csv: every logged number of a run as one table. Reading it needs no Lightning."""

import csv
import math
from pathlib import Path

COLUMNS = (
    "step",
    "epoch",
    "train/loss",
    "train/lr",
    "train/grad_norm",
    "train/tokens_per_s",
    "val/loss",
    "val/perplexity",
)
Points = list[tuple[int, float]]
"""(step, loss) pairs."""


def perplexity(loss: float) -> float:
    """Return exp(loss); infinity where that is too large for a float, and NaN for NaN."""
    return math.inf if loss > 700 else math.exp(loss)


def relative_change(before: float, after: float) -> float:
    """Return after / before - 1; NaN where ``before`` is zero."""
    return after / before - 1 if before else math.nan


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of the table, without a last one that is incomplete."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if line.endswith("\n")))


def read_losses(path: Path) -> tuple[Points, Points]:
    """Return the losses of training and of validation."""
    rows = read_table(path)

    def points(name: str) -> Points:
        return [(int(row["step"]), float(row[name])) for row in rows if row[name]]

    return points("train/loss"), points("val/loss")
