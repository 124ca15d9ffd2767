"""How cost grows, as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.peers import growth


def draw(cells: dict[str, Any], folder: Path) -> list[str]:
    """Draw what there are points for.

    Returns:
        The pictures' names.
    """
    drawn = []
    steps = growth.steps_of(cells)
    if len(steps) > 1:
        tokens, seconds, peaks = zip(*steps, strict=True)
        peaks = [peak / 1e3 for peak in peaks]
        _lines(folder / "step.png", "tokens in a batch", tokens, seconds, peaks, "GB at the peak")
        drawn.append("step.png")
    data = growth.rows_of(cells)
    if len(data) > 1:
        rows, seconds, memory = zip(*data, strict=True)
        _lines(folder / "rows.png", "rows prepared", rows, seconds, memory, "MB of its own")
        drawn.append("rows.png")
    return drawn


def _lines(
    path: Path,
    label: str,
    x: Sequence[float],
    seconds: Sequence[float],
    memory: Sequence[float],
    unit: str,
) -> None:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, y, name in zip(figure.subplots(1, 2), (seconds, memory), ("s", unit), strict=True):
        rise, start = growth.slope(list(x), list(y))
        axes.plot(x, y, "o")
        axes.plot([0, max(x)], [start, start + rise * max(x)])
        axes.set(
            xlabel=label, ylabel=name, title=f"{1000 * rise:.3g} {name.split()[0]} for 1,000 more"
        )
        axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=100)
