"""What the pictures of losses have in common: their limits and their legend."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from lit.messages import tr
from lit.searching.records import Search

SIZE = (8, 5.2)
ROOM = 0.08
"""Of the height of a picture, above and below what it shows."""
NEAR = 0.5
"""The base is shown if it is not farther from the losses than this share of their range."""


def set_limits(axes: Axes, search: Search, losses: Sequence[float]) -> float:
    """Show the losses that are lower than the base's, and the base as a line if it is near.

    Args:
        losses: All that could be shown, at least one.

    Returns:
        The highest loss that is shown.
    """
    low, high = min(losses), max(losses)
    base = sum(search.base_choose) / max(1, sum(search.choose_labels))
    if math.isfinite(base) and search.base_choose:
        low = min(low, base)
        below = [loss for loss in losses if loss <= base]
        high = max(below, default=base)
        if base - high <= NEAR * (high - low):
            high = base
            axes.axhline(base, color="#6b7280", linestyle=":", label=tr("base model, no adapter"))
        else:
            text = tr("the base model without an adapter has {loss:.3f}", loss=base)
            axes.text(0.99, 0.98, text, transform=axes.transAxes, ha="right", va="top", fontsize=9)
    room = ROOM * (high - low) or 0.01
    axes.set_ylim(low - room, high + room)
    return high + room


def add_legend(axes: Axes) -> None:
    """Name each kind of mark once, below the picture."""
    found: dict[str, Any] = {}
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
        found.setdefault(label, handle)
    axes.legend(
        found.values(),
        found.keys(),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=3,
        fontsize=9,
        frameon=False,
    )
