"""Which library computes the frozen layers of a model on this CPU."""

import math
from collections.abc import Iterable

from torch import nn

from lit.device.precision import BF16_FROZEN, Choice
from lit.fast_layers.bf16_linear import Bf16Linear
from lit.fast_layers.kept_times import are_large, product_times
from lit.fast_layers.onednn_linear import OneDNNLinear
from lit.fast_layers.product_times import BF16, ONEDNN, TORCH, shapes_of
from lit.fast_layers.table import (
    FAST_LAYERS,
    WITHOUT_GRADIENTS,
    use_bf16_products,
    use_fast_layers,
)
from lit.messages import tr
from lora.families.linear import linear_layers

MIN_GAIN = 1.05
"""oneDNN computes where torch's own library takes so many times as long."""


def choose_library(model: nn.Module) -> Choice | None:
    """Return TORCH or ONEDNN, whichever computes a model's frozen layers faster.

    Returns:
        None if none of its layers is dense, frozen, in float32 and on a CPU, or if they are small.
    """
    layers = [layer for layer in linear_layers(model).values() if OneDNNLinear.replaces(layer)]
    shapes = shapes_of(layers)
    if not are_large(shapes):
        return None
    times = product_times(shapes)
    gain = times[TORCH] / times[ONEDNN]
    reason = tr("oneDNN is {gain:.2f} times as fast as torch on layers like these", gain=gain)
    return Choice(ONEDNN if gain >= MIN_GAIN else TORCH, reason)


def fast_kinds(library: str) -> list[str]:
    """Return the keys of FAST_LAYERS for a model whose frozen layers a library computes."""
    return [
        kind for kind, made in FAST_LAYERS.items() if made is not OneDNNLinear or library == ONEDNN
    ]


def library_for(precision: str) -> str:
    """Return BF16 for the precision that asks for it, and empty, to choose, for others."""
    return BF16 if precision == BF16_FROZEN else ""


def use_fast_answers(model: nn.Module, library: str = "") -> str:
    """Freeze a model, and replace its layers by those that answer faster, in place.

    Args:
        model: With adapters or without.
        library: What computes its products, TORCH, ONEDNN or BF16; empty to choose one of the
            first two.

    Returns:
        The library.
    """
    model.requires_grad_(False)
    exact = library
    if library in ("", BF16):
        # The head's products stay in float32.
        choice = choose_library(model)
        exact = choice.value if choice else TORCH
    if library == BF16:
        use_bf16_products(model)
    use_fast_layers(model, [kind for kind in fast_kinds(exact) if kind in WITHOUT_GRADIENTS])
    return library or exact


def library_of(model: nn.Module) -> str:
    """Return what computes a model's frozen layers: TORCH, ONEDNN or BF16."""
    if any(isinstance(x, Bf16Linear) for x in model.modules()):
        return BF16
    return ONEDNN if any(isinstance(x, OneDNNLinear) for x in model.modules()) else TORCH


def bf16_gain(layers: Iterable[nn.Linear]) -> float | None:
    """Return how many times as fast this CPU computes products in bfloat16 as in float32.

    Args:
        layers: Those of a model, which may be on the meta device.

    Returns:
        None if the layers are small, or this CPU has no units for bfloat16.
    """
    times = product_times(shapes_of(layers))
    if BF16 not in times:
        return None
    return min(times.get(way, math.inf) for way in (TORCH, ONEDNN)) / times[BF16]
