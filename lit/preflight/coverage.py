"""What an adapter leaves as it is: the kinds of a model's parameters, and their shares."""

from collections import Counter

from torch import nn
from torch.nn.modules.conv import _ConvNd

from lit.messages import tr, tr_mark
from lora.base import parameter_size
from lora.families.decoder import text_path
from lora.families.linear import barred_layers, linear_layers, output_head
from lora.families.reach import is_router
from lora.layer import Adapter
from lora.paths import is_inside

LINEAR = tr_mark("linear layers that are not targets")
EXPERTS, ROUTERS = tr_mark("experts"), tr_mark("routers")
UNREACHED = tr_mark("layers that no adapter reaches")
CONVOLUTIONS, TOWERS = tr_mark("convolutions"), tr_mark("parts that see or hear")
OTHER = tr_mark("other weights")
EMBEDDINGS, HEAD, NORMS = "embeddings", "output head", "norms"
USUAL = {EMBEDDINGS, HEAD, NORMS}
"""Kinds that adapters of most models leave as they are: no line is needed if these are all."""
SAID = 0.001
"""The share of all other kinds from which they are mentioned."""


def shares_not_adapted(model: nn.Module) -> dict[str, float]:
    """Return the share of the base's parameters that no adapter changes, by kind, largest first.

    Args:
        model: A model with adapters, on any device, the meta device included.

    Returns:
        Shares from 0 to 1; with that of the adapted layers they sum to 1. A weight that two
        layers share counts once, where the model has it first.
    """
    modules = dict(model.named_modules())
    adapted = {id(p) for m in modules.values() if isinstance(m, Adapter) for p in m.parameters()}
    added = {
        id(p)
        for m in modules.values()
        if isinstance(m, Adapter)
        for name, p in m.named_parameters()
        if not name.startswith("base.")
    }
    linear, barred, head = linear_layers(model), barred_layers(model), output_head(model)
    part = text_path(model)
    sizes: Counter[str] = Counter()
    total = 0
    for name, parameter in model.named_parameters():
        if id(parameter) in added:
            continue
        size = parameter_size(parameter)
        total += size
        if id(parameter) in adapted:
            continue
        path = name.rpartition(".")[0]
        if modules[path] is not head and not is_inside(path, part):
            kind = TOWERS
        elif path in linear or path in barred:
            kind = ROUTERS if is_router(path) else LINEAR if path in linear else UNREACHED
        else:
            kind = HEAD if modules[path] is head else _kind(path, modules[path])
        sizes[kind] += size
    return {kind: size / total for kind, size in sizes.most_common()}


def describe_not_adapted(shares: dict[str, float]) -> str:
    """Return shares as a phrase; empty if only embeddings, head and norms are left."""
    special = {kind: share for kind, share in shares.items() if kind not in USUAL}
    if sum(special.values()) < SAID:
        return ""
    named = ", ".join(f"{tr(kind)} {_percent(share)}" for kind, share in special.items())
    usual = _percent(sum(shares.values()) - sum(special.values()))
    return tr(
        "not adapted, of the base's parameters: {named}; embeddings, output head and norms {usual}",
        named=named,
        usual=usual,
    )


def _kind(path: str, module: nn.Module) -> str:
    """Return the kind of a parameter of a layer that is not linear."""
    name = type(module).__name__.lower()
    if isinstance(module, _ConvNd):
        return CONVOLUTIONS
    if "norm" in name:
        return NORMS
    if isinstance(module, nn.Embedding) or "embedding" in name:
        return EMBEDDINGS
    if is_router(path):
        return ROUTERS
    # Most families keep all experts of a block in one tensor, (experts, out, in).
    if "experts" in name or "experts" in path.split("."):
        return EXPERTS
    return OTHER


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "<1%"
