"""The layers of a model that a config selects."""

from torch import nn

from lora.base import is_linear
from lora.config import ConfigError, LoRAConfig
from lora.full_layers import select_full_layers
from lora.paths import index_by_suffix, last_names

LISTED_NAMES = 5
"""Unknown names that one error lists."""


def select_layers(
    model: nn.Module, config: LoRAConfig
) -> tuple[dict[str, nn.Linear], dict[str, nn.Module]]:
    """Return the layers to adapt and the layers to train in full, by path; change nothing.

    Raises:
        ConfigError: A name or a block number matches nothing in this model.
    """
    full = select_full_layers(model, config.modules_to_save, config.ensure_weight_tying)
    blocks = config.layers_to_transform
    targets = {
        path: layer
        for path, layer in match_targets(model, config.target_modules).items()
        if path not in full and (blocks is None or _block(path) in blocks)
    }
    if not targets and blocks is None:
        raise ConfigError(
            "`modules_to_save` trains every layer of `target_modules` in full, so none is left to "
            "adapt: take a name out of `modules_to_save`"
        )
    if not targets:
        raise ConfigError(
            f"`layers_to_transform` is {blocks}, and no target layer is in these blocks; choose "
            f"from blocks 0 to {_last_block(model)}"
        )
    index = index_by_suffix(targets)
    for setting in ("rank_pattern", "alpha_pattern"):
        if unused := getattr(config, setting).keys() - index.keys():
            raise ConfigError(
                f"`{setting}` names {min(unused)}, which is not an adapted layer; adapted layers "
                f"are {last_names(targets)}"
            )
    return targets, full


def match_targets(model: nn.Module, target_modules: str | list[str]) -> dict[str, nn.Linear]:
    """Return the linear layers that the targets name, by path, in the model's order.

    Args:
        model: Any module.
        target_modules: ``all-linear``, ``attention``, ``mlp``, or ends of paths such as ``q_proj``
            and ``attn.c_proj``; one or a list.

    Raises:
        ConfigError: A target matches no layer.
    """
    linear = linear_layers(model)
    targets = [target_modules] if isinstance(target_modules, str) else target_modules
    attention = {path for path in linear if _is_attention(path)}
    groups = {"all-linear": set(linear), "attention": attention, "mlp": set(linear) - attention}
    index = index_by_suffix(linear)
    matches = {target: groups.get(target) or index.get(target, set()) for target in targets}
    if missing := [target for target, paths in matches.items() if not paths]:
        more = f" or {len(missing) - LISTED_NAMES} more" if len(missing) > LISTED_NAMES else ""
        raise ConfigError(
            f"no linear layer is named {', '.join(missing[:LISTED_NAMES])}{more}; "
            f"this model has {last_names(linear)}. "
            "Set `target_modules` to names from this list, or to all-linear"
        )
    selected = set().union(*matches.values())
    return {path: layer for path, layer in linear.items() if path in selected}


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return every linear layer but the output head, by path."""
    # The output head is as wide as the vocabulary and often tied to the embeddings.
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        path: module
        for path, module in model.named_modules(remove_duplicate=False)
        if is_linear(module) and module is not head and path
    }


def _is_attention(path: str) -> bool:
    return any("attn" in part or "attention" in part for part in path.split("."))


def _block(path: str) -> int | None:
    """Return the number of a layer's block: the first number in its path."""
    return next((int(part) for part in path.split(".") if part.isdecimal()), None)


def _last_block(model: nn.Module) -> int:
    return max((_block(path) or 0 for path in linear_layers(model)), default=0)
