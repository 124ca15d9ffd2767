"""Which layers of a model a config means."""

from torch import nn

from lora.base import is_linear
from lora.config import ConfigError, LoRAConfig, index_by_suffix
from lora.full_layers import select_full_layers


def select_layers(
    model: nn.Module, config: LoRAConfig
) -> tuple[dict[str, nn.Linear], dict[str, nn.Module]]:
    """The layers to adapt, and those to train in full, by path; nothing is changed.

    Raises:
        ConfigError: A name or a number means nothing in this model.
    """
    in_full = select_full_layers(model, config.modules_to_save)
    targets = {
        path: layer
        for path, layer in match_targets(model, config.target_modules).items()
        if path not in in_full and _in_blocks(path, config.layers_to_transform)
    }
    if not targets and config.layers_to_transform is None:
        raise ConfigError("lora.modules_to_save takes every layer of lora.target_modules")
    if not targets:
        raise ConfigError(
            f"lora.layers_to_transform is {config.layers_to_transform}, and no target layer is in "
            f"such a block; there are blocks 0 to {_blocks(model) - 1}"
        )
    named = index_by_suffix(targets)
    for setting, pattern in (("rank", config.rank_pattern), ("alpha", config.alpha_pattern)):
        if unused := pattern.keys() - named.keys():
            last = sorted({path.rpartition(".")[2] for path in targets})
            raise ConfigError(
                f"lora.{setting}_pattern names {min(unused)}, which is no adapted layer; "
                f"there are {', '.join(last)}"
            )
    return targets, in_full


def match_targets(model: nn.Module, target_modules: str | list[str]) -> dict[str, nn.Linear]:
    """The linear layers that the targets name, by path, in the model's order.

    A target is ``all-linear``, ``attention``, ``mlp``, or the end of a path: ``q_proj``,
    ``attn.c_proj``.
    """
    linear = linear_layers(model)
    targets = [target_modules] if isinstance(target_modules, str) else target_modules
    attention = {path for path in linear if _is_attention(path)}
    groups = {"all-linear": set(linear), "attention": attention, "mlp": set(linear) - attention}
    named = index_by_suffix(linear)
    matches = {target: groups.get(target) or named.get(target, set()) for target in targets}
    missing = [target for target, found in matches.items() if not found]
    if missing:
        names = sorted({path.rpartition(".")[2] for path in linear})
        more = f" or {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ConfigError(
            f"no linear layer is named {', '.join(missing[:5])}{more}; "
            f"this model has {', '.join(names)}. "
            "Set model.lora.target_modules to some of these, or to all-linear."
        )
    found = set().union(*matches.values())
    return {path: layer for path, layer in linear.items() if path in found}


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer but the output head, by path."""
    # The output head is as wide as the vocabulary and often tied to the embeddings.
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if is_linear(module) and module is not head and path
    }


def _is_attention(path: str) -> bool:
    return any("attn" in part or "attention" in part for part in path.split("."))


def _in_blocks(path: str, blocks: list[int] | None) -> bool:
    return blocks is None or _block(path) in blocks


def _block(path: str) -> int | None:
    """The number of the block a layer is in: the first in its path, whatever follows it."""
    return next((int(part) for part in path.split(".") if part.isdecimal()), None)


def _blocks(model: nn.Module) -> int:
    return max((_block(path) or 0 for path in linear_layers(model)), default=0) + 1
