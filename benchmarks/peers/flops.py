"""The arithmetic of a step, counted by torch as it is dispatched."""

import math
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Attention's forward pass on a CPU, which torch's own table lacks."""
    return sdpa_flop_count(query, key, value)


def attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Its backward pass."""
    return sdpa_backward_flop_count(grad, query, key, value)


def linear(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """A layer by oneDNN, weight (out, in), of which torch's table knows only its own."""
    return 2 * math.prod(x) * weight[0]


class Flops:
    """Counts between ``begin`` and ``end``."""

    def __init__(self) -> None:
        mapping = {ATTENTION: attention, ATTENTION_BACKWARD: attention_backward}
        mapping[torch.ops.mkldnn._linear_pointwise] = linear
        self._mode = FlopCounterMode(display=False, custom_mapping=mapping)
        self.counted = math.nan

    def begin(self) -> None:
        """Start counting."""
        self._mode.__enter__()

    def end(self) -> float:
        """Stop, and return the number."""
        self._mode.__exit__(None, None, None)
        self.counted = float(self._mode.get_total_flops())
        return self.counted
