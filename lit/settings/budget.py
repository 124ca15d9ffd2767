"""How long a command may measure."""

import math
import re
import time

from lit.messages import tr
from lora.config import ConfigError

SECONDS = {"s": 1, "m": 60, "h": 3600}
LEAST_SECONDS = 1e-6
"""Of a piece of work that a coarse clock measured as nothing."""


def parse_duration(text: str) -> float:
    """Return the seconds of a duration such as 90s, 3m or 1h.

    Raises:
        ConfigError: It is written otherwise, or not above zero.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or not float(found[1]):
        raise ConfigError(tr("--budget is {said}; write it as 90s, 3m or 1h", said=text))
    return float(found[1]) * SECONDS[found[2]]


class Budget:
    """A time that is not to be exceeded by much.

    Args:
        seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def allows(self, seconds: float) -> bool:
        """Return whether work of some seconds still fits."""
        return time.monotonic() + seconds <= self.end

    def room_for(self, seconds: float) -> int:
        """Return how many pieces of work of some seconds each still fit."""
        left = self.end - time.monotonic()
        return max(0, math.floor(left / max(seconds, LEAST_SECONDS)))
