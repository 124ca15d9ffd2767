"""Put adapters on a model, find them, switch them off, fold them in, take them out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lora.base import dense_copy, quantized_layer
from lora.config import ConfigError, LoRAConfig
from lora.dora import DoRALinear
from lora.full_layers import FullLayer, full_layers, unwrap, wrap_full_layers
from lora.layer import LoRALinear
from lora.pissa import PiSSALinear
from lora.targets import linear_layers, select_layers

VARIANTS: dict[str, type[LoRALinear]] = {
    "lora": LoRALinear,
    "dora": DoRALinear,
    "pissa": PiSSALinear,
}


class ParameterCount(NamedTuple):
    """Numbers of parameters."""

    trainable: int
    total: int


def inject(model: nn.Module, config: LoRAConfig) -> list[str]:
    """Freeze a model and put an adapter on each of its target layers, in place.

    Args:
        model: Any module; its parameters stop taking gradients.
        config: The adapter.

    Returns:
        The paths of the adapted layers.

    Raises:
        ConfigError: A name matches no layer, the variant is unknown or refuses a layer, or the
            model has adapters already.
    """
    if config.variant not in VARIANTS:
        raise ConfigError(f"lora.variant is {config.variant!r}; there are {', '.join(VARIANTS)}")
    if any(lora_layers(model)):
        raise ConfigError("this model has adapters already; merge or eject them first")
    targets, in_full = select_layers(model, config)
    variant = VARIANTS[config.variant]
    # All are made before the first is put in, since a variant may refuse a layer.
    layers = {path: variant(layer, config.at(path)) for path, layer in targets.items()}
    model.requires_grad_(False)
    for path, layer in layers.items():
        _replace(model, path, layer)
    for path, module in wrap_full_layers(in_full).items():
        _replace(model, path, module)
    return list(targets)


def quantize_model(model: nn.Module, kind: str, dtype: torch.dtype) -> None:
    """Put every linear layer but the output head into 4 or 8 bits, in place, on its device.

    Args:
        model: A dense model.
        kind: One of ``lora.base.KINDS``.
        dtype: What the layers compute in.
    """
    for path, layer in linear_layers(model).items():
        device = layer.weight.device
        _replace(model, path, quantized_layer(layer, kind, dtype).to(device))


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Yield every adapted layer with its path in the model."""
    for path, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield path, module


def merge(model: nn.Module) -> nn.Module:
    """Fold each adapter into its weight, in place; plain dense layers remain."""
    for path, layer in list(lora_layers(model)):
        _replace(model, path, dense_copy(layer.base, layer.merged()))
    for path, plain in unwrap(dict(full_layers(model))).items():
        _replace(model, path, plain)
    return model


def eject(model: nn.Module) -> nn.Module:
    """Take each adapter off, in place; the base model remains as it was."""
    for path, layer in _all_layers(model):
        _replace(model, path, layer.base)
    return model


@contextmanager
def adapters_disabled(model: nn.Module) -> Iterator[nn.Module]:
    """The base model for the length of a ``with`` block; the adapters come back after it."""
    before = [(layer, layer.enabled) for _, layer in _all_layers(model)]
    try:
        for layer, _ in before:
            layer.enabled = False
        yield model
    finally:
        for layer, enabled in before:
            layer.enabled = enabled


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable tensors by their path in the model: what a checkpoint holds."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count the parameters that train, and all, each tied one once."""

    def size(parameter: Tensor) -> int:
        quantized = getattr(parameter, "quant_state", None)
        return quantized.shape.numel() if quantized is not None else parameter.numel()

    parameters = list(model.parameters())
    return ParameterCount(
        trainable=sum(size(p) for p in parameters if p.requires_grad),
        total=sum(size(p) for p in parameters),
    )


def _all_layers(model: nn.Module) -> list[tuple[str, LoRALinear | FullLayer]]:
    return [*lora_layers(model), *full_layers(model)]


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
