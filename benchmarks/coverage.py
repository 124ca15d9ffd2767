"""Simulate how often the intervals of a comparison hold the true difference.

    python -m benchmarks.coverage [--write]

Rows have 5 to 79 labels; their mean differences are drawn from a distribution with mean zero, so an
interval that holds zero is right. ``--write`` replaces the table in docs/verdict.md.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lit.measures import intervals

PAGE = Path(__file__).parents[1] / "docs" / "verdict.md"
ROWS = (3, 5, 8, 10, 12, 15, 20, 30, 40)
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
DRAWS: dict[str, Draw] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "t3": lambda random, shape: random.standard_t(3, shape),
    "lognormal": lambda random, shape: random.lognormal(size=shape) - np.exp(0.5),
}
SETS = 1500


def percentile(difference: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the intervals of the percentile bootstrap, which lit.compare had before."""
    counts = np.random.default_rng(0).multinomial(
        difference.shape[1], np.full(difference.shape[1], 1 / difference.shape[1]), 1000
    )
    means = (counts @ difference.T) / (counts @ weights.T)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return low, high


def student(difference: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Student's intervals of the rows' sums."""
    rows, total = difference.shape[1], weights.sum(1)
    mean = difference.sum(1) / total
    rest = difference - mean[:, None] * weights
    half = intervals.student_t(rows - 1) * np.sqrt(rows / (rows - 1) * (rest**2).sum(1)) / total
    return mean - half, mean + half


METHODS = {"percentile bootstrap": percentile, "t": student, "used": intervals.intervals}


def coverage(name: str, rows: int, sets: int = SETS, seed: int = 1) -> dict[str, float]:
    """Return the share of intervals that hold zero, by method.

    Args:
        name: A key of ``DRAWS``.
        rows: Rows of a data set.
        sets: Data sets.
        seed: Of the data.
    """
    random = np.random.default_rng((seed, rows))
    weights = random.integers(5, 80, (sets, rows)).astype(float)
    difference = DRAWS[name](random, (sets, rows)) * weights
    found = {}
    for method, function in METHODS.items():
        low, high = function(difference, weights)
        found[method] = float(np.mean((low <= 0) & (high >= 0)))
    return found


def binary_coverage(rows: int, changed: float, gain: float, sets: int = SETS) -> float:
    """Return the coverage for outcomes of yes and no.

    Args:
        rows: Rows of a data set.
        changed: The share of rows on which the models differ.
        gain: The share of these that the tuned model wins.
        sets: Data sets.
    """
    random = np.random.default_rng((2, rows))
    changes = random.random((sets, rows)) < changed
    signs = np.where(random.random((sets, rows)) < gain, 1, -1)
    truth = changed * (2 * gain - 1)
    found = [intervals.paired_interval(row, binary=True) for row in changes * signs]
    return float(np.mean([x is not None and x.low <= truth <= x.high for x in found]))


def table() -> str:
    """Return the coverage of all methods as Markdown."""
    lines = [f"| differences | rows | {' | '.join(METHODS)} |", "|---|---|---|---|---|"]
    for name in DRAWS:
        for rows in ROWS:
            shares = " | ".join(f"{share:.1%}" for share in coverage(name, rows).values())
            lines.append(f"| {name} | {rows} | {shares} |")
    lines += ["", "| yes or no: rows that differ, gain | 10 rows | 20 rows | 40 rows |"]
    lines += ["|---|---|---|---|"]
    for changed, gain in ((0.1, 0.5), (0.4, 0.5), (0.4, 0.9), (0.1, 1.0)):
        shares = " | ".join(f"{binary_coverage(n, changed, gain):.1%}" for n in (10, 20, 40))
        lines.append(f"| {changed:.0%}, {gain:.0%} of them | {shares} |")
    return "\n".join(lines)


def main(args: list[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace the table in docs/verdict.md")
    options = parser.parse_args(args)
    start = time.perf_counter()
    text = table()
    print(text)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.write:
        page = PAGE.read_text("utf-8")
        marks = r"(<!-- coverage -->\n).*?(<!-- end -->)"
        PAGE.write_text(re.sub(marks, lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.S), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
