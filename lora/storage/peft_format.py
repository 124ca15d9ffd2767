"""The settings of an adapter in PEFT's format: the content of adapter_config.json."""

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from lora.base import is_transposed
from lora.config import ConfigError, LoRAConfig
from lora.full_layers import full_layers
from lora.injection import lora_layers
from lora.paths import ends_with, path_suffixes
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
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "use_bdlora": (False, None),
    "use_qalora": (False, None),
    "velora_config": (None, {}),
    # Any other initialization, such as pissa, changed the base, so the adapter does not fit it.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),
}
NUMBER = (int, float)
KINDS = {(bool,): "true or false", (int,): "a whole number", NUMBER: "a number"}
"""What an error message calls each kind of value."""


class AdapterError(ConfigError):
    """A folder does not hold an adapter for this model; the message says how it differs."""


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
    layers = dict(lora_layers(model))
    first = next(iter(layers.values()))
    excluded = first.config.exclude_modules
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": r,
        "lora_alpha": lora_alpha,
        "lora_dropout": first.config.lora_dropout,
        "target_modules": _shortest_names(model, set(layers), excluded),
        "exclude_modules": excluded or None,
        "use_rslora": False,
        "use_dora": isinstance(first, DoRALinear),
        "bias": "none",
        "fan_in_fan_out": any(is_transposed(layer.base) for layer in layers.values()),
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": _shortest_names(model, {path for path, _ in full_layers(model)}) or None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def from_peft(peft: dict[str, Any]) -> LoRAConfig:
    """Return the settings that a config in PEFT's format describes.

    Raises:
        AdapterError: A setting is not supported, or a value has a wrong type or is out of range.
    """
    for key, unused in UNSUPPORTED.items():
        if key in peft and not any(_same(peft[key], value) for value in unused):
            raise AdapterError(f"{key} is {_shown(peft[key])}, which is not supported")
    targets = peft.get("target_modules")
    if targets != "all-linear":
        targets = _names(peft, "target_modules")
    blocks = peft.get("layers_to_transform")
    peft = peft | {"layers_to_transform": [blocks] if isinstance(blocks, int) else blocks}
    settings: dict[str, Any] = {
        "variant": "dora" if _value(peft, "use_dora", (bool,)) else "lora",
        "target_modules": targets,
        "exclude_modules": _names(peft, "exclude_modules"),
        "r": _value(peft, "r", (int,)),
        "lora_alpha": _value(peft, "lora_alpha", NUMBER),
        "lora_dropout": _value(peft, "lora_dropout", NUMBER),
        "use_rslora": _value(peft, "use_rslora", (bool,)),
        "rank_pattern": _pattern(peft, "rank_pattern", (int,)),
        "alpha_pattern": _pattern(peft, "alpha_pattern", NUMBER),
        "layers_to_transform": _list(peft, "layers_to_transform", int) or None,
        "modules_to_save": _list(peft, "modules_to_save", str),
    }
    if not targets:
        raise AdapterError("target_modules is empty; it must be a list of names")
    try:
        return LoRAConfig(**{key: value for key, value in settings.items() if value is not None})
    except ConfigError as error:
        raise AdapterError(printable(str(error))) from None


def _value(peft: dict[str, Any], key: str, kinds: tuple[type, ...]) -> Any:
    value = peft.get(key)
    if value is not None and not _is(value, kinds):
        raise AdapterError(f"{key} is {_shown(value)}; it must be {KINDS[kinds]}")
    return value


def _names(peft: dict[str, Any], key: str) -> list[str]:
    if isinstance(peft.get(key), str):
        # PEFT reads a text as a regular expression.
        raise AdapterError(f"{key} is the pattern {_shown(peft[key])}; it must be a list of names")
    return _list(peft, key, str)


def _list(peft: dict[str, Any], key: str, kind: type) -> list:
    values = peft.get(key) or []
    if not isinstance(values, list) or not all(_is(value, (kind,)) for value in values):
        items = {int: "numbers", str: "names"}[kind]
        raise AdapterError(f"{key} is {_shown(values)}; it must be a list of {items}")
    return values


def _pattern(peft: dict[str, Any], key: str, kinds: tuple[type, ...]) -> dict:
    pattern = peft.get(key) or {}
    if not isinstance(pattern, dict) or not all(_is(value, kinds) for value in pattern.values()):
        raise AdapterError(f"{key} is {_shown(pattern)}; it must map names to numbers")
    # PEFT reads keys as regular expressions; a plain name means the same there and here.
    if odd := [name for name in pattern if not re.fullmatch(r"[\w.-]+", name)]:
        raise AdapterError(f"{key} has the pattern {_shown(odd[0])}; it must hold names")
    return pattern


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _same(value: object, unused: object) -> bool:
    # In Python 0 == False and 1 == True.
    return type(value) is type(unused) and value == unused


def printable(text: str, length: int = 400) -> str:
    """Return untrusted text, shortened, with control characters escaped."""
    text = text if len(text) <= length else text[:length] + "…"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _shown(value: object) -> str:
    return printable(repr(value), 80)


def _shortest_names(
    model: nn.Module, selected: set[str], excluded: Iterable[str] = ()
) -> list[str]:
    """Return the shortest path suffixes that match the selected layers and no others.

    Args:
        model: A model with adapters.
        selected: Paths of layers.
        excluded: Names of further layers that a suffix may match.
    """
    # GPT-2 has a c_proj in attention and one in the MLP: for the first, attn.c_proj is written.
    others = {
        suffix
        for path, _ in model.named_modules()
        if path not in selected
        and not any(ends_with(path, name) for name in ("base", "trained", *excluded))
        for suffix in path_suffixes(path)
    }
    return sorted(
        {
            next(suffix for suffix in path_suffixes(path) if suffix not in others)
            for path in selected
        }
    )
