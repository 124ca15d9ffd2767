"""Faster layers that compute what a model's own layers compute, in their place.

A new one is a class, and its line in FAST_LAYERS; the contract tests run over that table.
"""

from collections.abc import Collection

import torch
from torch import nn

from lit.fast_layers.bf16_linear import Bf16Linear
from lit.fast_layers.fused_norm import FusedRMSNorm
from lit.fast_layers.gated_mlp import GatedMLP
from lit.fast_layers.onednn_linear import OneDNNLinear
from lora.families.linear import output_head
from lora.full_layers import full_layers
from lora.replacement import replace_module

FAST_LAYERS: dict[str, type[GatedMLP] | type[FusedRMSNorm] | type[OneDNNLinear]] = {
    "gated MLP": GatedMLP,
    "RMS norm": FusedRMSNorm,
    "oneDNN linear": OneDNNLinear,
}
WITHOUT_GRADIENTS = ("RMS norm", "oneDNN linear")
"""The kinds that are faster where nothing is kept for a backward pass too."""


@torch.no_grad()
def use_fast_layers(
    model: nn.Module, kinds: Collection[str] = tuple(FAST_LAYERS)
) -> dict[str, int]:
    """Replace layers of a model by faster ones that compute the same, in place.

    ``lora.injection.eject`` puts the original layers back, and so does ``merge``.

    Args:
        model: With adapters or without. Layers that train in full are left as they are.
        kinds: Keys of FAST_LAYERS.

    Returns:
        How many layers of each kind were replaced.
    """
    return {kind: _replace(model, FAST_LAYERS[kind]) for kind in kinds}


@torch.no_grad()
def use_bf16_products(model: nn.Module) -> int:
    """Let a CPU compute the products of a model's frozen dense layers in bfloat16, in place.

    The head stays in float32, as the loss does; so do quantized layers.

    Args:
        model: In float32, with adapters or without.

    Returns:
        How many layers were replaced.
    """
    return _replace(model, Bf16Linear, output_head(model))


def _replace(model: nn.Module, fast: type, left: nn.Module | None = None) -> int:
    """Replace layers by others of a class.

    Args:
        model: The model.
        fast: The class.
        left: A module that is left as it is.

    Returns:
        How many layers were replaced.
    """
    trained = tuple(f"{path}." for path, _ in full_layers(model))
    targets = {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if path and not path.startswith(trained) and module is not left and fast.replaces(module)  # type: ignore[attr-defined]
    }
    # A layer that is shared between two paths stays shared.
    made = {id(module): fast(module) for module in targets.values()}
    for path, module in targets.items():
        replace_module(model, path, made[id(module)])
    return len(made)
