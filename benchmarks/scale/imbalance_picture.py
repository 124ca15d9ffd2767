"""A picture of imbalance by the number of ranks."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.scale.imbalance import Imbalance

LINES = {
    "padded": ("padded, dealt in turn", "#d94801", "^"),
    "in_turn": ("padding-free, dealt in turn", "#6b7280", "s"),
    "dealt": ("padding-free, dealt by the plan", "#2171b5", "o"),
}
TICKS = (1, 1.5, 2, 3, 5, 10, 20)

Curve = Mapping[int, Imbalance]
"""Imbalance by ranks."""


def draw(panels: Sequence[Sequence[tuple[str, Curve]]], path: Path) -> None:
    """Draw curves: the median of optimizer steps, and up to it from there what 95 % stay below.

    Args:
        panels: Rows of (title, curve).
        path: A .png file.
    """
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    all_axes = figure.subplots(len(panels), len(panels[0]), sharex=True, sharey="row")
    for axes, (title, curve) in zip(all_axes.flat, chain(*panels), strict=True):
        _panel(axes, curve)
        axes.set_title(title, fontsize=13)
    for row, curves in zip(all_axes, panels, strict=True):
        steps = [found.padded for _, curve in curves for found in curve.values()]
        row[0].set_ylim(0.95, 1.1 * max(np.quantile(part, 0.95) for part in steps))
    for axes in all_axes[-1]:
        axes.set_xlabel("ranks", fontsize=13)
    figure.supylabel("busiest rank / mean rank's tokens", fontsize=13)
    handles, labels = all_axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=12, frameon=False)
    figure.savefig(path, dpi=110)


def _panel(axes: Axes, curve: Curve) -> None:
    ranks = sorted(curve)
    for name, (label, color, marker) in LINES.items():
        steps = [getattr(curve[count], name) for count in ranks]
        middle, most = (np.array([np.quantile(s, share) for s in steps]) for share in (0.5, 0.95))
        axes.plot(ranks, middle, marker=marker, color=color, label=label, linewidth=2.5)
        axes.fill_between(ranks, middle, most, color=color, alpha=0.2, linewidth=0)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(ranks[::2], [str(count) for count in ranks[::2]])
    axes.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.tick_params(labelsize=12)
    axes.grid(alpha=0.3)
