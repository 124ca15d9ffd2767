"""Layers that train in full beside their frozen originals: embeddings and the output head."""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lora.config import ConfigError
from lora.layer import Adapter
from lora.messages import tr
from lora.paths import index_by_suffix, last_names


class FullLayer(Adapter):
    """A layer that trains in full: a float32 copy of its parameters trains, the original is frozen.

    Args:
        base: A layer without children. It is frozen in place and called with the trained values.
        trained: The float32 copies by name of the parameter. Layers with tied weights share them.
        apart: Whether other layers read the same parameters and keep their values.
    """

    def __init__(
        self, base: nn.Module, trained: dict[str, nn.Parameter], apart: bool = False
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.trained = nn.ParameterDict(trained)
        self.apart = apart

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer with the trained values, or with the frozen ones while disabled."""
        return functional_call(self.base, self._values(), (x,)) if self.enabled else self.base(x)

    @torch.no_grad()
    def folded(self) -> nn.Module:
        """Write the trained values into the base, in its dtype, and return it.

        The base keeps its parameters and gets new values, so tied weights stay tied; a layer that
        trained apart gets parameters of its own.
        """
        for name, value in self.trained.items():
            parameter = self.base.get_parameter(name)
            if self.apart:
                value = nn.Parameter(value.to(parameter.dtype), requires_grad=False)
                self.base.register_parameter(name, value)
            else:
                parameter.copy_(value)
        return self.base

    @property
    def weight(self) -> Tensor:
        """The weight in use, in the dtype of the base, for code that reads it."""
        return self._values()["weight"] if self.enabled else self.base.get_parameter("weight")

    @property
    def bias(self) -> Tensor | None:
        """The bias in use."""
        return self._values().get("bias") if self.enabled else getattr(self.base, "bias", None)

    def _values(self) -> dict[str, Tensor]:
        frozen = self.base.get_parameter
        return {name: value.to(frozen(name).dtype) for name, value in self.trained.items()}


def full_layers(model: nn.Module) -> Iterator[tuple[str, FullLayer]]:
    """Yield every layer that trains in full, with its path in the model."""
    for path, module in model.named_modules():
        if isinstance(module, FullLayer):
            yield path, module


def select_full_layers(model: nn.Module, names: list[str], tied: bool) -> dict[str, nn.Module]:
    """Return the layers that the names match and the layers tied to them, by path.

    Tied weights are one matrix, so every layer that reads it trains: an embedding that is also the
    output head comes with the head.

    Args:
        model: Any module.
        names: Ends of paths.
        tied: Whether layers tied to them come along.

    Raises:
        ConfigError: A name matches no layer, or one that cannot train.
    """
    leaves = {
        path: module
        for path, module in model.named_modules()
        if path and not list(module.children()) and list(module.parameters())
    }
    index = index_by_suffix(leaves)
    for name in names:
        if name not in index:
            raise ConfigError(
                tr(
                    "no layer is named {name}; this model has {names}. Set "
                    "`modules_to_save` to names from this list, such as embed_tokens",
                    name=name,
                    names=last_names(leaves),
                )
            )
        parameters = [p for path in index[name] for p in leaves[path].parameters()]
        if not all(p.is_floating_point() for p in parameters):
            raise ConfigError(
                tr(
                    "`modules_to_save` names {name}, whose weight is quantized and cannot "
                    "train: name it in `target_modules` instead",
                    name=name,
                )
            )
    selected = {path for name in names for path in index[name]}
    shared = {id(p) for path in selected for p in leaves[path].parameters()} if tied else set()
    return {
        path: module
        for path, module in leaves.items()
        if path in selected or any(id(p) in shared for p in module.parameters())
    }


def wrap_full_layers(layers: dict[str, nn.Module], tied: bool) -> dict[str, FullLayer]:
    """Wrap layers; those with tied weights share one trained copy, or each has its own."""
    masters: dict[object, nn.Parameter] = {}

    def master(path: str, parameter: nn.Parameter) -> nn.Parameter:
        key = id(parameter) if tied else (path, id(parameter))
        if key not in masters:
            masters[key] = nn.Parameter(parameter.detach().float().clone())
        return masters[key]

    return {
        path: FullLayer(
            layer, {name: master(path, p) for name, p in layer.named_parameters()}, apart=not tied
        )
        for path, layer in layers.items()
    }


def tied_groups(model: nn.Module) -> list[list[str]]:
    """Return the groups of two or more paths whose layers share one trained matrix."""
    groups: dict[int, list[str]] = {}
    for path, layer in full_layers(model):
        for value in layer.trained.values():
            groups.setdefault(id(value), []).append(path)
    return [paths for paths in groups.values() if len(paths) > 1]


def untied_layers(model: nn.Module) -> list[str]:
    """Return the paths of layers that train apart from a layer with the same frozen matrix."""
    readers = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    return [
        path
        for path, layer in full_layers(model)
        if layer.apart and any(readers[id(p)] > 1 for p in layer.base.parameters())
    ]
