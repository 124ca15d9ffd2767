"""Put adapters on a model, find them, disable them, merge them, take them off."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from lora.base import parameter_size, quantized_layer
from lora.config import ConfigError, LoRAConfig
from lora.families.experts import is_experts, names_in_file
from lora.full_layers import untied_layers, wrap_full_layers
from lora.layer import DISABLED, Adapter, LoRALinear
from lora.messages import tr
from lora.replacement import replace_module, replacements
from lora.targets import linear_layers, select_layers
from lora.variants.dora import DoRALinear
from lora.variants.experts import ExpertFactors, LoRAExperts, wrap_experts
from lora.variants.pissa import PiSSALinear

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
        config: The adapter's settings.

    Returns:
        The paths of the adapted layers.

    Raises:
        ConfigError: A name matches no layer, the variant is unknown or refuses a layer, or the
            model has adapters already. No layer was replaced.
    """
    if config.variant not in VARIANTS:
        raise ConfigError(
            tr(
                "`variant` is {variant!r}; choose {variants}",
                variant=config.variant,
                variants=", ".join(VARIANTS),
            )
        )
    if any(isinstance(module, Adapter) for module in model.modules()):
        raise ConfigError(tr("this model has adapters already: call merge(model) or eject(model)"))
    targets, full = select_layers(model, config)
    variant = VARIANTS[config.variant]
    # All layers are made before the first is replaced: a variant may refuse one of them.
    layers = {
        path: wrap_experts(layer, path, config)
        if is_experts(layer)
        else variant(layer, config.at(path))
        for path, layer in targets.items()
    }
    model.requires_grad_(False)
    full_layers = wrap_full_layers(full, config.ensure_weight_tying)
    for path, layer in [*layers.items(), *full_layers.items()]:
        replace_module(model, path, layer)
    return list(targets)


def quantize_model(model: nn.Module, kind: str, dtype: torch.dtype) -> None:
    """Quantize every linear layer but the output head, in place, on its device.

    Args:
        model: A dense model.
        kind: One of ``lora.base.QUANTIZATIONS``.
        dtype: The dtype the layers compute in.
    """
    layers = linear_layers(model)
    for path in list(layers):
        # Each dense layer is freed before the next one is quantized.
        layer = layers.pop(path)
        replace_module(model, path, quantized_layer(layer, kind, dtype).to(layer.weight.device))


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Yield every adapted linear layer with its path in the model."""
    for path, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield path, module


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear | LoRAExperts]]:
    """Yield every layer with low-rank updates with its path: linear layers, and experts."""
    for path, module in model.named_modules():
        if isinstance(module, LoRALinear | LoRAExperts):
            yield path, module


def updates(model: nn.Module) -> Iterator[tuple[str, LoRALinear | ExpertFactors]]:
    """Yield every low-rank update with the path under which an adapter's file has it.

    A linear layer has one, under its own path; experts have one for each of two parameters.
    """
    for path, layer in adapted_layers(model):
        if isinstance(layer, LoRALinear):
            yield path, layer
        else:
            stored = names_in_file(path, layer.base)
            yield from ((stored[name], update) for name, update in layer.updates())


def merge(model: nn.Module) -> nn.Module:
    """Replace each adapter, in place, by a dense layer that computes the same.

    A model whose embedding and output head no longer are one matrix says so in its config.
    """
    untied = untied_layers(model)
    for path, module in replacements(model):
        replace_module(model, path, module.folded())
    config: Any = getattr(model, "config", None)
    if untied and hasattr(config, "get_text_config"):
        # What transformers saves, and what it ties when it loads, depends on this value.
        config.tie_word_embeddings = config.get_text_config().tie_word_embeddings = False
    return model


def eject(model: nn.Module) -> nn.Module:
    """Take every adapter and every faster layer off, in place; the base model remains."""
    for path, module in replacements(model):
        replace_module(model, path, module.original())
    return model


@contextmanager
def adapters_disabled(model: nn.Module) -> Iterator[nn.Module]:
    """Disable the adapters, so that the model computes what its base computes; enable them after.

    They are disabled in the current thread or asyncio task only. Other threads that use the model
    at the same time, and threads that are started inside the block, compute with the adapters. On a
    GPU the backward pass has a thread of its own: do not train with checkpointing inside the block.

    Yields:
        The model itself.
    """
    # The list keeps the adapters alive, so that no other object gets one of the ids.
    adapters = [module for module in model.modules() if isinstance(module, Adapter)]
    own = {id(adapter) for adapter in adapters} - DISABLED.get()
    DISABLED.set(DISABLED.get() | own)
    try:
        yield model
    finally:
        DISABLED.set(DISABLED.get() - own)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that train, keyed by their path in the model."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count the parameters that train and all parameters; a shared one counts once."""
    parameters = list(model.parameters())
    return ParameterCount(
        trainable=sum(parameter_size(p) for p in parameters if p.requires_grad),
        total=sum(parameter_size(p) for p in parameters),
    )
