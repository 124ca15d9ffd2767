"""The gate for a trainer's callback, and the count of the first step's arithmetic."""

import math
import os
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.peers.gate import Gate

VARIABLE = "LIT_LORA_BENCHMARK_FLOPS"
"""Environment variable that makes a contender count."""
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Count the forward pass of attention on a CPU, which torch's table lacks."""
    return sdpa_flop_count(query, key, value)


def attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Count the backward pass of attention on a CPU."""
    return sdpa_backward_flop_count(grad, query, key, value)


def linear(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Count a linear layer by oneDNN, weight (out, in), which torch's table lacks."""
    return 2 * math.prod(x) * weight[0]


class StepGate:
    """Waits at the gate before each optimizer step, and counts the first step's operations.

    Attributes:
        report: What the next request reports about the current step.
    """

    def __init__(self) -> None:
        self.report: dict[str, Any] = {}
        self._gate = Gate.from_environment()
        self._counter: FlopCounterMode | None = None
        if os.environ.get(VARIABLE):
            table = {ATTENTION: attention, ATTENTION_BACKWARD: attention_backward}
            table[torch.ops.mkldnn._linear_pointwise] = linear
            self._counter = FlopCounterMode(display=False, custom_mapping=table)

    def begin_step(self, step: int, rows: int) -> None:
        """Report the step before, wait, and begin a step.

        Args:
            step: Its number, from 0.
            rows: The digest of its rows.
        """
        self.wait()
        self.report = {"rows": rows}
        if step == 0 and self._counter:
            self._counter.__enter__()

    def end_step(self, step: int) -> None:
        """Stop counting after the first step.

        Args:
            step: Its number, from 0.
        """
        if step == 0 and self._counter:
            self._counter.__exit__(None, None, None)
            self.report["flops"] = float(self._counter.get_total_flops())

    def wait(self) -> None:
        """Report the step before, and wait."""
        self._gate.step(**self.report)
