"""Put adapters on a model, find them, switch them off, fold them in, take them out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lora.base import is_linear, quantised, with_weight
from lora.config import ConfigError, LoRAConfig
from lora.layer import LoRALinear

VARIANTS: dict[str, type[LoRALinear]] = {"lora": LoRALinear}


class Count(NamedTuple):
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
        ConfigError: A target name matches no layer, the variant is unknown, or the model has
            adapters already.
    """
    if config.variant not in VARIANTS:
        raise ConfigError(f"lora.variant is {config.variant!r}; there are {', '.join(VARIANTS)}")
    if any(adapted(model)):
        raise ConfigError("this model has adapters already; merge or eject them first")
    targets = match(model, config.target_modules)
    model.requires_grad_(False)
    for path, layer in targets.items():
        _replace(model, path, VARIANTS[config.variant](layer, config))
    return list(targets)


def quantise(model: nn.Module, kind: str, dtype: torch.dtype) -> None:
    """Put every linear layer but the output head into 4 bits, in place, on the model's device.

    Args:
        model: A dense model.
        kind: ``nf4`` or ``fp4``.
        dtype: What the layers compute in.
    """
    for path, layer in _linear_layers(model).items():
        device = layer.weight.device
        _replace(model, path, quantised(layer, kind, dtype).to(device))


def match(model: nn.Module, target_modules: str | list[str]) -> dict[str, nn.Linear]:
    """The linear layers that the targets name, by path, in the model's order.

    A target is ``all-linear``, ``attention``, ``mlp``, or the end of a path: ``q_proj``,
    ``attn.c_proj``.
    """
    linear = _linear_layers(model)
    targets = [target_modules] if isinstance(target_modules, str) else target_modules
    chosen: set[str] = set()
    missing = []
    for target in targets:
        if target == "all-linear":
            found = set(linear)
        elif target == "attention":
            found = {path for path in linear if _is_attention(path)}
        elif target == "mlp":
            found = {path for path in linear if not _is_attention(path)}
        else:
            found = {path for path in linear if ends_with(path, target)}
        if not found:
            missing.append(target)
        chosen |= found
    if missing:
        names = sorted({path.rpartition(".")[2] for path in linear})
        raise ConfigError(
            f"no linear layer is named {', '.join(missing)}; this model has {', '.join(names)}. "
            "Set model.lora.target_modules to some of these, or to all-linear."
        )
    return {path: layer for path, layer in linear.items() if path in chosen}


def ends_with(path: str, target: str) -> bool:
    """Whether a module's path ends with a target, at a dot."""
    return path == target or path.endswith("." + target)


def adapted(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Yield every adapted layer with its path in the model."""
    for path, module in model.named_modules():
        if isinstance(module, LoRALinear):
            yield path, module


def merge(model: nn.Module) -> nn.Module:
    """Fold each adapter into its weight, in place; plain dense layers remain."""
    for path, layer in list(adapted(model)):
        _replace(model, path, with_weight(layer.base, layer.merged()))
    return model


def eject(model: nn.Module) -> nn.Module:
    """Take each adapter off, in place; the base model remains as it was."""
    for path, layer in list(adapted(model)):
        _replace(model, path, layer.base)
    return model


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """The base model for the length of a ``with`` block; the adapters come back after it."""
    before = [(layer, layer.enabled) for _, layer in adapted(model)]
    try:
        for layer, _ in before:
            layer.enabled = False
        yield model
    finally:
        for layer, enabled in before:
            layer.enabled = enabled


def tensors(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable tensors by their path in the model: what a checkpoint holds."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def count(model: nn.Module) -> Count:
    """Count the parameters that train, and all, each tied one once."""

    def size(parameter: Tensor) -> int:
        quantised = getattr(parameter, "quant_state", None)
        return quantised.shape.numel() if quantised is not None else parameter.numel()

    parameters = list(model.parameters())
    return Count(
        trainable=sum(size(p) for p in parameters if p.requires_grad),
        total=sum(size(p) for p in parameters),
    )


def _linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    # The output head is as wide as the vocabulary and often tied to the embeddings.
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if is_linear(module) and module is not head and path
    }


def _is_attention(path: str) -> bool:
    return any("attn" in part or "attention" in part for part in path.split("."))


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
