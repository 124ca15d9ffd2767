"""How our cost grows: a step with the tokens of its batch, data preparation with rows."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import many_rows, speed, workloads
from benchmarks.peers.contenders import ours

TOKENS = (512, 1024, 2048, 4096, 8192)
ROWS = (100, 1000, 10_000, 100_000, 1_000_000)
STEPS = 3


def measure_step(tokens: int, folder: Path) -> dict[str, Any]:
    """Measure steps of about that many tokens."""
    settings = {"batch_size": tokens // workloads.MAX_LENGTH}
    path = workloads.prepare("c", settings, STEPS, folder)
    return speed.measure({"ours": (ours(path), {})}, path, 1, folder)


def measure_data(rows: int, folder: Path) -> dict[str, Any]:
    """Measure reading, tokenizing and storing that many rows, with one process."""
    return many_rows.measure(rows, folder)


def fit_line(x: list[float], y: list[float]) -> float:
    """Return the slope of the line through points, by least squares."""
    return float(np.polyfit(x, y, 1)[0])


def fit_power(x: list[float], y: list[float]) -> float:
    """Return the power of x that y grows with: 1 is linear."""
    return fit_line(list(np.log(x)), list(np.log(y)))


def steps_of(cells: dict[str, Any]) -> list[tuple[float, float, float]]:
    """Return the measured steps as (tokens, seconds, peak in MB), sorted by tokens."""
    steps = []
    for name, cell in cells.items():
        if name.startswith("growth/tokens/") and "ours" in cell.get("contenders", {}):
            own, warm = cell["contenders"]["ours"], cell["warm"]
            tokens, seconds = cell["tokens"][warm:], own["seconds"][warm:]
            steps.append((float(np.median(tokens)), float(np.median(seconds)), own["peak_mb"]))
    return sorted(steps)


def rows_of(cells: dict[str, Any]) -> list[tuple[int, float, float, float]]:
    """Return data preparation: (rows, seconds, own memory in MB, seconds of a second start)."""
    return sorted(
        (cell["rows"], cell["seconds"], cell["peak_own_mb"], cell["second_start_s"])
        for name, cell in cells.items()
        if name.startswith("growth/rows/") and "error" not in cell
    )
