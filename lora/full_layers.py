"""Layers that train in full beside their frozen originals: embeddings, the output head."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lora.config import ConfigError, index_by_suffix


class FullLayer(nn.Module):
    """A layer whose own parameters train, as float32 masters beside the frozen ones.

    Args:
        base: A layer without layers below it. Frozen in place; called with the trained values.
        trained: The masters by name. Layers with tied weights are given the same ones.
    """

    base: nn.Module

    def __init__(self, base: nn.Module, trained: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.trained = nn.ParameterDict(trained)
        self.enabled = True

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer with the trained values, or with its own where disabled."""
        return functional_call(self.base, self._values(), (x,)) if self.enabled else self.base(x)

    @property
    def weight(self) -> Tensor:
        """The weight in use, in the base's dtype, for code outside that reads it."""
        return self._values()["weight"] if self.enabled else self.base.get_parameter("weight")

    @property
    def bias(self) -> Tensor | None:
        """The bias in use."""
        return self._values().get("bias") if self.enabled else getattr(self.base, "bias", None)

    def _values(self) -> dict[str, Tensor]:
        own = self.base.get_parameter
        return {name: value.to(own(name).dtype) for name, value in self.trained.items()}


def full_layers(model: nn.Module) -> Iterator[tuple[str, FullLayer]]:
    """Yield every layer that trains in full, with its path in the model."""
    for path, module in model.named_modules():
        if isinstance(module, FullLayer):
            yield path, module


def select_full_layers(model: nn.Module, names: list[str]) -> dict[str, nn.Module]:
    """The layers that names mean, and those whose weights are tied to theirs, by path.

    Tied weights are one matrix, so all layers that read it train together: an embedding that is
    also the output head comes with the head.

    Raises:
        ConfigError: A name matches no layer, or one that cannot train.
    """
    leaves = {
        path: module
        for path, module in model.named_modules()
        if path and not list(module.children()) and list(module.parameters())
    }
    named = index_by_suffix(leaves)
    for name in names:
        if name not in named:
            there = sorted({path.rpartition(".")[2] for path in leaves})
            raise ConfigError(
                f"no layer is named {name}; this model has {', '.join(there)}. "
                "Set model.lora.modules_to_save to some of these, like embed_tokens."
            )
        parameters = [p for path in named[name] for p in leaves[path].parameters()]
        if not all(p.is_floating_point() for p in parameters):
            raise ConfigError(
                f"model.lora.modules_to_save names {name}, whose weight is quantized and cannot "
                "train: adapt it by target_modules"
            )
    asked = {path for name in names for path in named[name]}
    shared = {id(p) for path in asked for p in leaves[path].parameters()}
    return {
        path: module
        for path, module in leaves.items()
        if path in asked or any(id(p) in shared for p in module.parameters())
    }


def wrap_full_layers(layers: dict[str, nn.Module]) -> dict[str, FullLayer]:
    """Wrap layers, one master for each matrix, however many of them read it."""
    masters: dict[int, nn.Parameter] = {}

    def master(parameter: nn.Parameter) -> nn.Parameter:
        if id(parameter) not in masters:
            masters[id(parameter)] = nn.Parameter(parameter.detach().float().clone())
        return masters[id(parameter)]

    return {
        path: FullLayer(layer, {name: master(p) for name, p in layer.named_parameters()})
        for path, layer in layers.items()
    }


def tied_groups(model: nn.Module) -> list[list[str]]:
    """Groups of paths whose layers train one matrix together."""
    groups: dict[int, list[str]] = {}
    for path, layer in full_layers(model):
        for value in layer.trained.values():
            groups.setdefault(id(value), []).append(path)
    return [paths for paths in groups.values() if len(paths) > 1]


@torch.no_grad()
def unwrap(layers: dict[str, FullLayer]) -> dict[str, nn.Module]:
    """The plain layers with the trained values in the base's dtype; tied ones stay tied."""
    settled: dict[int, nn.Parameter] = {}
    for layer in layers.values():
        for name, value in layer.trained.items():
            dtype = layer.base.get_parameter(name).dtype
            if id(value) not in settled:
                settled[id(value)] = nn.Parameter(value.detach().to(dtype), requires_grad=False)
            setattr(layer.base, name, settled[id(value)])
    return {path: layer.base for path, layer in layers.items()}
