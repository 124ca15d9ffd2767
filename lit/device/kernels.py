"""The kernel that computes attention over rows that lie end to end, on each kind of device."""

from typing import Literal

import torch

from lit.device.device import Traits

Kernel = Literal["rows", "varlen", "nested"]
"""``rows``: one call for each row. ``varlen``: torch's flash attention of variable lengths.
``nested``: a jagged nested tensor, which reaches the memory-efficient kernel."""
HALF = (torch.float16, torch.bfloat16)
MAX_FLASH_HEAD = 256
"""The largest head that the flash kernels have."""
NO_FLASH_BACKWARD = range(193, 225)
"""Heads for which consumer cards have no backward pass of flash attention."""


def choose_kernel(
    device: Traits,
    dtype: torch.dtype,
    head_size: int,
    plain: bool,
    window: int | None,
    shared: bool = False,
) -> Kernel:
    """Return the kernel for a batch of rows.

    Args:
        device: The device.
        dtype: The dtype of queries, keys and values.
        head_size: Values of a head.
        plain: Whether scores are neither capped nor dropped, and queries, keys and values have one
            dtype and one size.
        window: The sliding window, if a row is longer; None if every token sees all before it.
        shared: Whether rows share beginnings, so that a segment has more keys than queries.
    """
    if device.kind != "cuda" or not plain:
        return "rows"
    half = dtype in HALF
    if head_size % (8 if half else 4):
        return "rows"  # both kernels read 16 bytes at a time
    has_flash = device.flash and device.has_bf16 and half
    if has_flash and head_size <= MAX_FLASH_HEAD and head_size not in NO_FLASH_BACKWARD:
        return "varlen"
    # A nested tensor takes no mask: no window, and no causal mask that is aligned to the end.
    return "nested" if window is None and not shared else "rows"
