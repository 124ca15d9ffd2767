"""The layers of a model that a config selects."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from lora.config import EXPERTS, ConfigError, LoRAConfig
from lora.families.experts import describe_experts, expert_parameters, is_experts
from lora.families.linear import barred_layers, expert_layers, linear_layers
from lora.families.reach import is_router
from lora.full_layers import select_full_layers
from lora.messages import tr
from lora.paths import ends_with, index_by_suffix, last_names

LISTED_NAMES = 5
"""Unknown names that one error lists."""


def select_layers(
    model: nn.Module, config: LoRAConfig
) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    """Return the layers to adapt and the layers to train in full, by path; change nothing.

    The layers to adapt are linear, or hold the experts of a block.

    Raises:
        ConfigError: A name or a block number matches nothing in this model.
    """
    full = select_full_layers(model, config.modules_to_save, config.ensure_weight_tying)
    blocks = config.layers_to_transform
    targets = {
        path: layer
        for path, layer in match_targets(
            model, config.target_modules, config.exclude_modules
        ).items()
        if path not in full and (blocks is None or _block(path) in blocks)
    }
    if not targets and blocks is None:
        raise ConfigError(
            tr(
                "`modules_to_save` trains every layer of `target_modules` in full, so none "
                "is left to adapt: take a name out of `modules_to_save`"
            )
        )
    if not targets:
        raise ConfigError(
            tr(
                "`layers_to_transform` is {blocks}, and no target layer is in these blocks; "
                "choose from blocks 0 to {last_block}",
                blocks=blocks,
                last_block=_last_block(model),
            )
        )
    parameters = [
        f"{path}.{name}"
        for path, layer in targets.items()
        if is_experts(layer)
        for name in expert_parameters(layer)
    ]
    index = index_by_suffix([*targets, *parameters])
    for setting in ("rank_pattern", "alpha_pattern"):
        if unused := getattr(config, setting).keys() - index.keys():
            raise ConfigError(
                tr(
                    "`{setting}` names {name}, which is not an adapted layer; adapted "
                    "layers are {names}",
                    setting=setting,
                    name=min(unused),
                    names=last_names(targets),
                )
            )
    return targets, full


def match_targets(
    model: nn.Module, target_modules: str | list[str], exclude_modules: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """Return the layers that the targets name, by path: linear ones, then those with experts.

    Args:
        model: Any module.
        target_modules: ``projections``, ``all-linear``, ``attention``, ``mlp``, ``experts``, or
            ends of paths such as ``q_proj`` and ``attn.c_proj``; one or a list.
        exclude_modules: Ends of paths of layers to leave out.

    Raises:
        ConfigError: A name matches no layer, or one that no adapter can reach.
    """
    linear = linear_layers(model)
    if not linear:
        raise ConfigError(
            tr(
                "{kind} has no linear layer that an adapter can go on: choose another model",
                kind=type(model).__name__,
            )
        )
    targets = [target_modules] if isinstance(target_modules, str) else target_modules
    experts = expert_layers(model)
    groups, index = _groups(linear, experts), index_by_suffix([*linear, *experts])
    barred = barred_layers(model)
    barred_index = index_by_suffix(barred)
    for target in targets:
        if target not in groups and (paths := barred_index.get(target)):
            raise ConfigError(_why_barred(target, min(paths), barred, linear))
    matches = {target: groups.get(target) or index.get(target, set()) for target in targets}
    missing = [target for target, paths in matches.items() if not paths]
    if any(ends_with(target, EXPERTS) for target in missing):
        raise ConfigError(
            tr(
                "`target_modules` has experts, and {kind} has none of that name that an "
                "adapter can go on: {experts}. Take experts out; the linear layers "
                "are {names}",
                kind=type(model).__name__,
                experts=describe_experts(model, linear, experts),
                names=last_names(linear),
            )
        )
    if missing:
        names = ", ".join(missing[:LISTED_NAMES])
        if len(missing) > LISTED_NAMES:
            names = tr("{names} or {rest} more", names=names, rest=len(missing) - LISTED_NAMES)
        raise ConfigError(
            tr(
                "no linear layer is named {names}; this model has {layers}. Set "
                "`target_modules` to names from this list, or to all-linear",
                names=names,
                layers=last_names(linear),
            )
        )
    selected = set().union(*matches.values())
    selected -= _excluded(model, selected, exclude_modules)
    return {path: layer for path, layer in (linear | experts).items() if path in selected}


def _groups(linear: Iterable[str], experts: Iterable[str]) -> dict[str, set[str]]:
    """Return the layers of each name that stands for several."""
    projections = {path for path in linear if not is_router(path)}
    attention = {path for path in projections if _is_attention(path)}
    return {
        "projections": projections,
        "all-linear": set(linear),
        "attention": attention,
        "mlp": projections - attention,
        EXPERTS: set(experts),
    }


def _why_barred(target: str, path: str, barred: dict[str, str], linear: Iterable[str]) -> str:
    # Other layers of the same name may be reached.
    apart = index_by_suffix(linear).keys() - index_by_suffix(barred).keys()
    if longer := [suffix for suffix in apart if suffix.endswith(f".{target}")]:
        return tr(
            "`target_modules` names {target}, and no adapter can go on {path}: {reason}. Write "
            "{name} for the others",
            target=target,
            path=path,
            reason=barred[path],
            name=min(longer, key=lambda suffix: (len(suffix), suffix)),
        )
    return tr(
        "`target_modules` names {target}, and no adapter can go on {path}: {reason}. Choose from "
        "{names}, or set `target_modules` to all-linear",
        target=target,
        path=path,
        reason=barred[path],
        names=last_names(linear),
    )


def known_exclusions(model: nn.Module, names: Sequence[str]) -> list[str]:
    """Return the names that match experts, or a layer that is or looks linear."""
    layers = [*linear_layers(model), *expert_layers(model), *barred_layers(model)]
    index = index_by_suffix(layers)
    return [name for name in names if name in index]


def _excluded(model: nn.Module, selected: set[str], names: Sequence[str]) -> set[str]:
    """Return the selected layers that the names leave out.

    Raises:
        ConfigError: A name matches no layer, or no layer is left.
    """
    known = known_exclusions(model, names) if names else []
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            tr(
                "`exclude_modules` names {name}, and no layer that adapters go on is "
                "named so; `target_modules` selects {names}",
                name=unknown[0],
                names=last_names(selected),
            )
        )
    index = index_by_suffix(selected)
    excluded = set().union(*(index.get(name, ()) for name in names))
    if selected <= excluded:
        raise ConfigError(
            tr(
                "`exclude_modules` leaves out every layer that `target_modules` selects, "
                "{names}: take a name out of it",
                names=last_names(selected),
            )
        )
    return excluded


def _is_attention(path: str) -> bool:
    return any("attn" in part or "attention" in part for part in path.split("."))


def _block(path: str) -> int | None:
    """Return the number of a layer's block: the first number in its path."""
    return next((int(part) for part in path.split(".") if part.isdecimal()), None)


def _last_block(model: nn.Module) -> int:
    return max((_block(path) or 0 for path in linear_layers(model)), default=0)
