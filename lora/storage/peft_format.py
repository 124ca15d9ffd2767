"""The settings of an adapter in PEFT's format: the content of adapter_config.json."""

from typing import Any

from torch import nn

from lora.config import EXPERTS, ConfigError, LoRAConfig
from lora.families.experts import DOWN, UP, expert_parameters, is_experts
from lora.families.linear import is_transposed
from lora.full_layers import full_layers
from lora.injection import adapted_layers, updates
from lora.messages import tr
from lora.paths import ends_with
from lora.storage.layer_names import shortest_names
from lora.storage.peft_values import (
    NUMBER,
    AdapterError,
    list_of,
    names_of,
    pattern_of,
    printable,
    shown,
    value_of,
)
from lora.variants.dora import DoRALinear

# Settings of PEFT that this package does not support, with the values that mean "not used".
UNSUPPORTED: dict[str, tuple] = {
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None, {}),
    "bias": ("none", None),
    "corda_config": (None, {}),
    "eva_config": (None, {}),
    "kasa_config": (None, {}),
    "layer_replication": (None, []),
    "layers_pattern": (None, [], ""),
    "loftq_config": (None, {}),
    "lora_bias": (False, None),
    "lora_ga_config": (None, {}),
    "megatron_config": (None, {}),
    "monteclora_config": (None, {}),
    "trainable_token_indices": (None, [], {}),
    "use_bdlora": (False, None),
    "use_qalora": (False, None),
    "velora_config": (None, {}),
    # Any other initialization, such as pissa, changed the base, so the adapter does not fit it.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),
}


def to_peft(
    model: nn.Module, r: int, lora_alpha: int, base: str, revision: str | None
) -> dict[str, Any]:
    """Return the settings of a model's adapter in PEFT's format.

    Args:
        model: A model with adapters.
        r: The rank of every saved A and B.
        lora_alpha: Their alpha; an integer, since Ollama's converter reads no other number.
        base: The base model's hub name or folder.
        revision: The base model's revision on the hub.
    """
    layers = dict(adapted_layers(model))
    experts = {path: layer.base for path, layer in layers.items() if is_experts(layer.base)}
    parameters = {name: None for base in experts.values() for name in expert_parameters(base)}
    first = next(update for _, update in updates(model))
    excluded = first.config.exclude_modules
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": r,
        "lora_alpha": lora_alpha,
        "lora_dropout": first.config.lora_dropout,
        "target_modules": shortest_names(model, layers.keys() - experts.keys(), excluded),
        "exclude_modules": excluded or None,
        "use_rslora": False,
        "use_dora": isinstance(first, DoRALinear),
        "bias": "none",
        "fan_in_fan_out": any(is_transposed(layer.base) for layer in layers.values()),
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": shortest_names(model, {path for path, _ in full_layers(model)}) or None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    if experts:
        ends = shortest_names(model, set(experts))
        settings["target_parameters"] = [f"{end}.{name}" for end in ends for name in parameters]
    return settings


def from_peft(peft: dict[str, Any]) -> LoRAConfig:
    """Return the settings that a config in PEFT's format describes.

    Raises:
        AdapterError: A setting is not supported, or a value has a wrong type or is out of range.
    """
    for key, unused in UNSUPPORTED.items():
        if key in peft and not any(_same(peft[key], value) for value in unused):
            raise AdapterError(
                tr("{key} is {value}, which is not supported", key=key, value=shown(peft[key]))
            )
    targets = peft.get("target_modules")
    if targets != "all-linear":
        targets = names_of(peft, "target_modules")
    if experts := _experts(peft):
        targets = [*([targets] if isinstance(targets, str) else targets), *experts]
    blocks = peft.get("layers_to_transform")
    peft = peft | {"layers_to_transform": [blocks] if isinstance(blocks, int) else blocks}
    settings: dict[str, Any] = {
        "variant": "dora" if value_of(peft, "use_dora", (bool,)) else "lora",
        "target_modules": targets,
        "exclude_modules": names_of(peft, "exclude_modules"),
        "r": value_of(peft, "r", (int,)),
        "lora_alpha": value_of(peft, "lora_alpha", NUMBER),
        "lora_dropout": value_of(peft, "lora_dropout", NUMBER),
        "use_rslora": value_of(peft, "use_rslora", (bool,)),
        "rank_pattern": pattern_of(peft, "rank_pattern", (int,)),
        "alpha_pattern": pattern_of(peft, "alpha_pattern", NUMBER),
        "layers_to_transform": list_of(peft, "layers_to_transform", int) or None,
        "modules_to_save": list_of(peft, "modules_to_save", str),
    }
    if not targets:
        raise AdapterError(tr("target_modules is empty; it must be a list of names"))
    try:
        return LoRAConfig(**{key: value for key, value in settings.items() if value is not None})
    except ConfigError as error:
        raise AdapterError(printable(str(error))) from None


def _experts(peft: dict[str, Any]) -> list[str]:
    """Return ends of the paths of the experts whose parameters are targets."""
    found: dict[str, set[str]] = {}
    for name in list_of(peft, "target_parameters", str):
        path, _, last = name.rpartition(".")
        found.setdefault(path or EXPERTS, set()).add(last)
    for path, names in found.items():
        if not names <= {*UP, DOWN} or len(names) < 2 or DOWN not in names:
            raise AdapterError(
                tr(
                    "target_parameters has {names} of {path}; only adapters on both weights "
                    "of experts load, {first} or {second} and {down}",
                    names=shown(sorted(names)),
                    path=shown(path),
                    first=UP[0],
                    second=UP[1],
                    down=DOWN,
                )
            )
        patterns = (pattern_of(peft, f"{name}_pattern", NUMBER) for name in ("rank", "alpha"))
        for key in (key for pattern in patterns for key in pattern):
            if ends_with(path, key) or ends_with(key, path):
                raise AdapterError(
                    tr(
                        "a pattern names {key}, which PEFT does not apply: experts have "
                        "patterns by parameter, such as {name}.{down}",
                        key=shown(key),
                        name=key,
                        down=DOWN,
                    )
                )
    return list(found)


def _same(value: object, unused: object) -> bool:
    # In Python 0 == False and 1 == True.
    return type(value) is type(unused) and value == unused
