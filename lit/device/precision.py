"""The precisions of a run: the dtype of the base, and of the computation."""

from contextlib import AbstractContextManager, nullcontext

import torch

from lora.config import ConfigError

PRECISIONS = {
    "32-true": torch.float32,
    "16-mixed": torch.float16,
    "bf16-mixed": torch.bfloat16,
    "bf16-true": torch.bfloat16,
}
"""The dtype of the base for each trainer.precision; A and B are float32 in all of them."""


def base_dtype(precision: str) -> torch.dtype:
    """Return the dtype of the base for a precision.

    Raises:
        ConfigError: The precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"trainer.precision is {precision}; choose {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def computing_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a trainer of a precision computes a loss."""
    if precision.endswith("-mixed"):
        return torch.autocast(device.type, base_dtype(precision))
    return nullcontext()
