"""Medians, and ratios of interleaved pairs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Spread(NamedTuple):
    """A median between the least and the most."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} … {self.high:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """The median of some values, the least and the most."""
    return Spread(*(float(x) for x in np.quantile(values, [0, 0.5, 1])))


def ratio(other: Sequence[float], own: Sequence[float]) -> Spread:
    """How many times another's seconds ours are, pair by pair: what is above 1 is our gain."""
    pairs = min(len(other), len(own))
    return spread([x / y for x, y in zip(other[:pairs], own[:pairs], strict=True)])


class Cell(NamedTuple):
    """What is said of a contender in a workload."""

    tokens_per_s: float
    seconds: float
    ratio: Spread
    gflop_per_token: float | None
    share: float | None
    """Of the ceiling, where the arithmetic was counted."""


def summarise(cell: dict[str, Any], name: str) -> Cell:
    """Numbers of one contender from a cell of ``benchmarks.peers.speed``."""
    warm, own = cell["warm"], cell["contenders"][name]
    seconds = own["seconds"][warm:]
    rates = [n / s for n, s in zip(cell["tokens"][warm:], seconds, strict=False)]
    ours = cell["contenders"].get("ours", own)["seconds"][warm:]
    products = cell["contenders"]["ceiling"]["seconds"][warm:]
    peak = cell["gflop_of_product"] / float(np.median(products))
    # Padding is arithmetic too, but no useful token.
    gflop = own["flops"] / cell["tokens"][0] / 1e9 if own["flops"] else None
    rate = float(np.median(rates))
    share = rate * gflop / peak if gflop else None
    return Cell(rate, float(np.median(seconds)), ratio(seconds, ours), gflop, share)


def comparable(cells: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """The cells of workloads in which ours was measured, by workload and mode, in order."""
    found = {}
    for name, cell in sorted(cells.items()):
        if name.startswith("speed/") and "ours" in cell.get("contenders", {}):
            _, key, mode = name.split("/")
            found[key, mode] = cell
    return found
