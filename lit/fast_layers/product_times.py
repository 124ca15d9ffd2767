"""How long this CPU takes for the products of frozen layers: by each library, and in bfloat16."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit.device.device import traits
from lit.fast_layers.bf16_linear import bf16_product
from lit.fast_layers.onednn_linear import has_onednn, product
from lora.base import features

LIMIT = 0.3
"""Seconds after which timing ends, when every product was timed once."""
REPEATS = 3
"""Times that a product is computed in a row; the first one is a warm-up.

In a step one library computes product after product. Right after another one oneDNN is a tenth
slower.
"""
MOST_ROUNDS = 10
"""Rounds over all products that suffice."""
FINE = time.get_clock_info("thread_time").resolution < 1e-6
"""Whether the clock of a thread, which stands still while it waits, can time a product."""
TOKENS = 128
"""Rows of each product; a micro-batch has as many or more."""
LARGEST = 1024
"""Larger dimensions are cut to this many: larger products run at about the same rate."""

Shapes = tuple[tuple[int, int, int], ...]
"""Outputs and inputs of linear layers, and how many layers have them, sorted."""
Times = dict[str, float]
"""Seconds by keys of WAYS, for the forward and the backward products of all layers."""
Product = Callable[[Tensor, Tensor], Tensor]

TORCH, ONEDNN, BF16 = "torch", "oneDNN", "bfloat16"
WAYS: dict[str, tuple[Product, Product, torch.dtype]] = {
    TORCH: (lambda x, weight: x @ weight.t(), torch.matmul, torch.float32),
    ONEDNN: (product, lambda g, weight: product(g, weight.t()), torch.float32),
    BF16: (lambda x, weight: bf16_product(x, weight.t()), bf16_product, torch.bfloat16),
}
"""The product of the forward pass, x Wᵀ, that of the backward pass, g W, and the weight's dtype."""


class _Timed(NamedTuple):
    """A product, and how often a step has it."""

    way: str
    often: float
    run: Callable[[], Tensor]


def shapes_of(layers: Iterable[nn.Linear]) -> Shapes:
    """Return the shapes of linear layers."""
    counts = Counter(features(layer) for layer in layers)
    return tuple(sorted((out, width, number) for (width, out), number in counts.items()))


@torch.no_grad()
def time_products(shapes: Shapes, limit: float = LIMIT) -> Times:
    """Time the products of layers in all ways that this CPU has, in turns.

    Args:
        shapes: Those of the layers.
        limit: Seconds after which this ends, when every product was timed once.

    Returns:
        Sums of the shortest time of each product.
    """
    begin = time.perf_counter()
    clock = time.thread_time if FINE else time.perf_counter
    products = _products(shapes)
    shortest: dict[int, float] = {}
    for place in [*range(len(products))] * MOST_ROUNDS:
        for repeat in range(REPEATS):
            start = clock()
            products[place].run()
            if repeat:
                shortest[place] = min(clock() - start, shortest.get(place, math.inf))
        if len(shortest) == len(products) and time.perf_counter() > begin + limit:
            break
    sums: defaultdict[str, float] = defaultdict(float)
    for place, timed in enumerate(products):
        sums[timed.way] += timed.often * shortest[place]
    return dict(sums)


def _products(shapes: Shapes) -> list[_Timed]:
    """Return the products of layers; the ways of each follow each other."""
    often: defaultdict[tuple[int, int], float] = defaultdict(float)
    for outputs, inputs, layers in shapes:
        cut = min(outputs, LARGEST), min(inputs, LARGEST)
        often[cut] += layers * outputs * inputs / math.prod(cut)
    return [
        _Timed(way, number, _product(way, direction, *shape))
        for shape, number in often.items()
        for direction in (0, 1)
        for way in ways_here()
    ]


def ways_here() -> list[str]:
    """Return the keys of WAYS that this CPU and this torch have."""
    has = {TORCH: True, ONEDNN: has_onednn(), BF16: traits(torch.device("cpu")).cpu_bf16}
    return [way for way in WAYS if has[way]]


def _product(way: str, direction: int, outputs: int, inputs: int) -> Callable[[], Tensor]:
    forward, backward, dtype = WAYS[way]
    function = backward if direction else forward
    # Ones, since the time does not depend on the values, and torch's generator stays as it is.
    x = torch.ones(TOKENS, (inputs, outputs)[direction])
    weight = torch.ones(outputs, inputs, dtype=dtype)
    return lambda: function(x, weight)
