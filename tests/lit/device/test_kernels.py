"""The attention kernel of each device, by a table."""

from dataclasses import replace

import pytest
import torch
from test_device import AMPERE, APPLE, CPU, TURING

from lit.device.device import Traits
from lit.device.kernels import choose_kernel

WINDOWS = replace(AMPERE, flash=False)
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
CHOSEN = [
    # device, dtype, head size, plain, window, kernel
    (CPU, FP32, 64, True, None, "rows"),
    (CPU, BF16, 64, True, 16, "rows"),
    (APPLE, FP32, 64, True, None, "rows"),
    (AMPERE, BF16, 64, True, None, "varlen"),
    (AMPERE, FP16, 256, True, 4096, "varlen"),
    (AMPERE, BF16, 320, True, None, "nested"),
    (AMPERE, BF16, 100, True, None, "rows"),
    (AMPERE, BF16, 208, True, None, "nested"),
    (AMPERE, FP32, 100, True, None, "nested"),
    (AMPERE, FP32, 50, True, None, "rows"),
    (WINDOWS, BF16, 64, True, None, "nested"),
    (WINDOWS, BF16, 64, True, 16, "rows"),
    (AMPERE, BF16, 64, False, None, "rows"),
    (AMPERE, FP32, 64, True, None, "nested"),
    (AMPERE, FP32, 64, True, 16, "rows"),
    (TURING, FP16, 64, True, None, "nested"),
    (TURING, FP16, 64, True, 16, "rows"),
    (TURING, FP16, 64, False, None, "rows"),
    (TURING, FP32, 128, True, None, "nested"),
]


@pytest.mark.parametrize(("device", "dtype", "size", "plain", "window", "kernel"), CHOSEN)
def test_the_kernel_is_one_that_the_device_has(
    device: Traits, dtype: torch.dtype, size: int, plain: bool, window: int | None, kernel: str
):
    assert choose_kernel(device, dtype, size, plain, window) == kernel
