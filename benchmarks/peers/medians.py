"""Medians, and ratios of interleaved pairs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Spread(NamedTuple):
    """A median between the minimum and the maximum, or between the quartiles."""

    low: float
    middle: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.low:.2f} … {self.high:.2f})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median, the minimum and the maximum of values."""
    return Spread(*(float(x) for x in np.quantile(values, [0, 0.5, 1])))


def quartiles(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles of values."""
    return Spread(*(float(x) for x in np.quantile(values, [0.25, 0.5, 0.75])))


def ratio(other: Sequence[float], own: Sequence[float]) -> Spread:
    """Return the spread of other / own, pair by pair; above 1, ours is faster."""
    return spread(ratios(other, own))


def ratios(other: Sequence[float], own: Sequence[float]) -> list[float]:
    """Return other / own of each pair of turns; a contender that failed has fewer."""
    pairs = min(len(other), len(own))
    return [x / y for x, y in zip(other[:pairs], own[:pairs], strict=True)]


class Summary(NamedTuple):
    """One contender in one workload."""

    tokens_per_s: float
    seconds: float
    ratio: Spread
    """Seconds over ours, with quartiles."""
    gflop_per_token: float | None
    share: float | None
    """Of the ceiling, if the operations were counted."""


def summarize(cell: dict[str, Any], name: str) -> Summary:
    """Summarize one contender of a cell of ``benchmarks.peers.speed``."""
    cell = turns_of(cell, name)
    warm, own = cell["warm"], cell["contenders"][name]
    seconds = own["seconds"][warm:]
    rates = [n / s for n, s in zip(cell["tokens"][warm:], seconds, strict=False)]
    ours = cell["contenders"].get("ours", own)["seconds"][warm:]
    # Padding is arithmetic too, but not a useful token.
    gflop = own["flops"] / cell["tokens"][0] / 1e9 if own["flops"] else None
    rate = float(np.median(rates))
    share = rate * gflop / ceiling(cell) if gflop else None
    over = quartiles(ratios(seconds, ours))
    return Summary(rate, float(np.median(seconds)), over, gflop, share)


def turns_of(cell: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the part of a cell in which a contender took turns with ours."""
    return cell.get("apart", {}).get(name, cell)


def ceiling(cell: dict[str, Any]) -> float:
    """Return the GFLOP/s of large matrix products, timed in the same rounds."""
    products = cell["contenders"]["ceiling"]["seconds"][cell["warm"] :]
    return cell["gflop_of_product"] / float(np.median(products))


def comparable(cells: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the speed cells that have a measurement of ours, by workload and mode, in order."""
    known = {}
    for name, cell in sorted(cells.items()):
        if name.startswith("speed/") and "ours" in cell.get("contenders", {}):
            _, key, mode = name.split("/")
            known[key, mode] = cell
    return known
