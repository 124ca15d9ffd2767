"""How ours grows: a step with the tokens of a batch, data preparation with rows."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data_scale
from benchmarks.peers import speed, workloads
from benchmarks.peers.contenders import ours

TOKENS = (512, 1024, 2048, 4096, 8192)
ROWS = (100, 1000, 10_000, 100_000, 1_000_000)
STEPS = 3


def step(tokens: int, folder: Path) -> dict[str, Any]:
    """A step's median seconds and the process's peak, in a process of its own."""
    settings = {"batch_size": tokens // workloads.MAX_LENGTH}
    path = workloads.prepare("c", settings, STEPS, folder)
    return speed.cell({"ours": (ours(path), {})}, path, 1, folder)


def data(rows: int, folder: Path) -> dict[str, Any]:
    """Seconds and memory of reading, tokenizing and storing, with one process."""
    (result,) = data_scale.run([rows], 1, 1, folder, ("ours",))
    return result


def slope(x: list[float], y: list[float]) -> tuple[float, float]:
    """The straight line through points by least squares: (slope, value at 0)."""
    rise, start = np.polyfit(x, y, 1)
    return float(rise), float(start)


def exponent(x: list[float], y: list[float]) -> float:
    """The slope in logarithms: 1 where y grows as x does."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def steps_of(cells: dict[str, Any]) -> list[tuple[float, float, float]]:
    """What was measured of steps: (tokens, seconds, peak in MB), by tokens."""
    found = []
    for name, cell in cells.items():
        if name.startswith("growth/tokens/") and "ours" in cell.get("contenders", {}):
            own, warm = cell["contenders"]["ours"], cell["warm"]
            tokens, seconds = cell["tokens"][warm:], own["seconds"][warm:]
            found.append((float(np.median(tokens)), float(np.median(seconds)), own["peak_mb"]))
    return sorted(found)


def rows_of(cells: dict[str, Any]) -> list[tuple[int, float, float]]:
    """What was measured of data preparation: (rows, seconds, own memory in MB), by rows."""
    return sorted(
        (cell["rows"], cell["seconds"], cell["peak_own_mb"])
        for name, cell in cells.items()
        if name.startswith("growth/rows/") and "error" not in cell
    )
