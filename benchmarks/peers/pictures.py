"""How cost grows, as pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.peers import growth
from benchmarks.peers.contenders import TITLES
from benchmarks.peers.medians import comparable, summarise


def draw(cells: dict[str, Any], folder: Path) -> list[str]:
    """Draw what there are points for.

    Returns:
        The pictures' names.
    """
    drawn = []
    if known := comparable(cells):
        _bars(folder / "peers.png", known)
        drawn.append("peers.png")
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


def _bars(path: Path, known: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Seconds of the others' steps over ours, each with its least and most."""
    others = [name for name in TITLES if name != "ours"]
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(others)
    for place, name in enumerate(others):
        cells = [(n, cell) for n, cell in enumerate(known.values()) if name in cell["contenders"]]
        ratios = [summarise(cell, name).ratio for _, cell in cells]
        x = [n + (place - (len(others) - 1) / 2) * width for n, _ in cells]
        middles = [ratio.middle for ratio in ratios]
        reach = [[r.middle - r.low for r in ratios], [r.high - r.middle for r in ratios]]
        axes.bar(x, middles, width, yerr=reach, capsize=2, label=TITLES[name])
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(known)), [f"({key})\n{mode}" for key, mode in known])
    axes.set_ylabel("seconds of a step / ours")
    axes.legend(loc="upper right", ncols=len(others))
    figure.savefig(path, dpi=100)
