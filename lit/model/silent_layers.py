"""Adapted layers that learn nothing: what to tell a person of them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.types import Batch
from lit.messages import tr
from lit.model.loss import token_losses
from lora.config import ConfigError
from lora.injection import adapted_layers, updates
from lora.paths import last_names


def check_reached(model: PreTrainedModel, batch: Batch) -> None:
    """Check that the model calls every adapter in training; one that is not called never learns.

    Raises:
        ConfigError: An adapter is not called, in no block.
    """
    layers, called = dict(adapted_layers(model)), set[nn.Module]()
    hooks = [
        layer.register_forward_hook(lambda layer, *_: called.add(layer))
        for layer in layers.values()
    ]
    was_training = model.training
    # Some families read a weight in training that they call otherwise. Dropout draws numbers.
    model.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        token_losses(model, batch)
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    # A single expert may get no token of a short row, but some expert gets one.
    reached = {_kind(path) for path, layer in layers.items() if layer in called}
    if silent := [path for path in layers if _kind(path) not in reached]:
        raise ConfigError(
            tr(
                "{silent} of {layers} adapters are never reached, for example {first}: {type} "
                "does not call these layers. Set `exclude_modules` to [{last_names}]",
                silent=len(silent),
                layers=len(layers),
                first=silent[0],
                type=type(model).__name__,
                last_names=last_names(silent),
            )
        )


def layers_without_gradient(model: nn.Module) -> str:
    """Return which adapted layers have no gradient, or zeros only; empty if all have one."""
    gradients = {path: update.lora_B.grad for path, update in updates(model)}
    if not (silent := _paths_of_zeros(gradients)):
        return ""
    return tr(
        "{count} adapted layers got no gradient in the first step, for example {layer}: "
        "they would never learn. Leave them out: model.lora.exclude_modules",
        count=len(silent),
        layer=_layer(silent[0]),
    )


def unchanged_layers(model: nn.Module, steps: int) -> str:
    """Return which adapted layers still have a B of zeros; empty if none has.

    Args:
        model: With adapters.
        steps: Optimizer steps that were done.
    """
    factors = {path: update.lora_B for path, update in updates(model)}
    if not (silent := _paths_of_zeros(factors)):
        return ""
    return tr(
        "B of {silent} of {layers} adapted layers is still zero after {steps} steps, for example "
        "{layer}: these layers change nothing. Raise model.lr, or train longer",
        silent=len(silent),
        layers=len(factors),
        steps=steps,
        layer=_layer(silent[0]),
    )


def _paths_of_zeros(tensors: Mapping[str, Tensor | None]) -> list[str]:
    """Return the paths whose tensor is missing or zero; the device is asked once."""
    there = {path: tensor for path, tensor in tensors.items() if tensor is not None}
    found = torch.stack([tensor.any() for tensor in there.values()]).tolist() if there else []
    filled = {path for path, any_of_it in zip(there, found, strict=True) if any_of_it}
    return [path for path in tensors if path not in filled]


def _layer(stored: str) -> str:
    """Return the path of a layer in the model; experts store one of two updates under another."""
    return stored.removesuffix(".base_layer")


def _kind(path: str) -> str:
    """Return a path without its numbers: the same for a layer of every block and expert."""
    return ".".join(part for part in path.split(".") if not part.isdecimal())
