"""What a search varies, and its default range around the config's own settings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LR, R, ALPHA = "model.lr", "model.lora.r", "model.lora.lora_alpha"
TARGETS = "model.lora.target_modules"
RECORDED = (LR, R, ALPHA, TARGETS)
"""Settings that every trial records, searched or not."""
RANKS = (4, 8, 16, 32)
SPREAD = 10.0
"""How far the default range of the learning rate reaches on either side of the config's own."""
DIGITS = 3
"""Significant digits of a number that was drawn from a range."""
KINDS: dict[str, tuple[type, ...]] = {
    LR: (int, float),
    "model.weight_decay": (int, float),
    "model.warmup": (int, float),
    "model.optimizer": (str,),
    R: (int,),
    ALPHA: (int, float),
    TARGETS: (str, list),
    "model.lora.lora_dropout": (int, float),
    "model.lora.use_rslora": (bool,),
    "model.lora.variant": (str,),
    "model.lora.loraplus_lr_ratio": (int, float),
    "model.lora.neftune_alpha": (int, float),
}
"""The settings that can be searched, with the types of their values.

Not the schedule: it is constant while settings are compared. Not the data: rows, cuts and batches
would give other losses.
"""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Dimension:
    """What one setting may be: one of some choices, or a number of a range.

    Args:
        name: The dotted name of the setting.
        choices: The values; empty for a range.
        low, high: The ends of the range.
        log: Whether the range is uniform in the logarithm.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether its numbers are integers."""
        return KINDS[self.name] == (int,)

    @property
    def size(self) -> float:
        """How many values it has; infinite for a range of numbers that are not whole."""
        if self.whole and not self.choices:
            return round(self.high) - round(self.low) + 1
        return len(self.choices) or math.inf

    def has(self, value: Any) -> bool:
        """Return whether a value is one of its own."""
        return value in self.choices if self.choices else self.low <= value <= self.high

    def at(self, share: float) -> Any:
        """Return the value at a share of the dimension, in [0, 1)."""
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if self.log:
            return self.rounded(self.low * (self.high / self.low) ** share)
        return self.rounded(self.low + (self.high - self.low) * share)

    def rounded(self, value: float) -> float | int:
        """Return a number as it is tried: short enough to be read and typed."""
        if self.whole:
            return round(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


@dataclass(frozen=True)
class Space:
    """All that a search varies.

    Args:
        dimensions: What varies.
        own: The config's own values of all settings that are recorded.
    """

    dimensions: tuple[Dimension, ...]
    own: Settings

    @property
    def others(self) -> float:
        """How many settings there are besides the config's own; infinite with a range."""
        has_own = all(dimension.has(self.own[dimension.name]) for dimension in self.dimensions)
        return math.prod(dimension.size for dimension in self.dimensions) - has_own

    def settings(self, values: Mapping[str, Any]) -> Settings:
        """Return the recorded settings of a trial; lora_alpha follows r unless it varies itself."""
        settings = self.own | dict(values)
        if R in values and ALPHA not in values:
            alpha = self.own[ALPHA] * values[R] / self.own[R]
            settings[ALPHA] = int(alpha) if alpha == int(alpha) else alpha
        return settings

    def describe(self) -> str:
        """Return what varies, in one line."""
        parts = []
        for dimension in self.dimensions:
            name = dimension.name.removeprefix("model.").removeprefix("lora.")
            if dimension.choices:
                parts.append(f"{name} {{{', '.join(map(str, dimension.choices))}}}")
            else:
                parts.append(f"{name} {dimension.low:g} … {dimension.high:g}")
        return "; ".join(parts)


def default_space(own: Settings, adapter: str | None) -> Space:
    """Return the default range around the config's own settings.

    Args:
        own: The config's own values, at least those of ``RECORDED``.
        adapter: The adapter that the run goes on from, which decides all but the learning rate.
    """
    low, high = own[LR] / SPREAD, min(own[LR] * SPREAD, 0.5)
    lr = Dimension(LR, low=float(f"{low:.2g}"), high=float(f"{high:.2g}"), log=True)
    recorded = {name: own[name] for name in RECORDED}
    if adapter:
        return Space((lr,), recorded)
    # On most models the two are the same layers, and equal settings should have one name.
    every = "projections" if own[TARGETS] == "projections" else "all-linear"
    return Space((lr, Dimension(R, RANKS), Dimension(TARGETS, ("attention", every))), recorded)
