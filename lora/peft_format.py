"""The settings of an adapter in PEFT's words: what adapter_config.json says."""

import re
from typing import Any

from torch import nn

from lora.base import is_transposed
from lora.config import ConfigError, LoRAConfig, ends_with, path_suffixes
from lora.dora import DoRALinear
from lora.full_layers import full_layers
from lora.inject import lora_layers

# What PEFT may write that this package does not do, with the values that mean "not used".
UNSUPPORTED: dict[str, tuple] = {
    "alora_invocation_tokens": (None, []),
    "arrow_config": (None, {}),
    "bias": ("none", None),
    "corda_config": (None, {}),
    "eva_config": (None, {}),
    "exclude_modules": (None, []),
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
    # Any other start, as pissa, changed the base too: the adapter does not fit the original.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),
}
NUMBER = (int, float)


class AdapterError(ConfigError):
    """A folder is not an adapter for this model; the message says how it differs."""


def to_peft(
    model: nn.Module, r: int, lora_alpha: int, base: str, revision: str | None
) -> dict[str, Any]:
    """A model's adapter in PEFT's words.

    Args:
        model: With adapters.
        r: The one rank of all tensors as they are saved.
        lora_alpha: Their one alpha; a whole number, as Ollama's converter reads no other.
        base: The base model's hub name or folder.
        revision: The base model's revision on the hub.
    """
    layers = dict(lora_layers(model))
    first = next(iter(layers.values()))
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": r,
        "lora_alpha": lora_alpha,
        "lora_dropout": first.config.lora_dropout,
        "target_modules": _shortest_names(model, set(layers)),
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


def from_peft(words: dict[str, Any]) -> LoRAConfig:
    """The settings that a config in PEFT's words describes.

    Raises:
        AdapterError: It asks for what this package does not do, or a value is not what it must be.
    """
    for key, unused in UNSUPPORTED.items():
        if key in words and not any(_same(words[key], value) for value in unused):
            raise AdapterError(f"{key} is {_shown(words[key])}, which is not supported")
    targets = words.get("target_modules")
    if isinstance(targets, str) and targets != "all-linear":
        raise AdapterError(
            f"target_modules is the pattern {_shown(targets)}; it must be a list of names"
        )
    blocks = words.get("layers_to_transform")
    words = words | {"layers_to_transform": [blocks] if isinstance(blocks, int) else blocks}
    settings: dict[str, Any] = {
        "variant": "dora" if _value(words, "use_dora", (bool,)) else "lora",
        "target_modules": targets or [],
        "r": _value(words, "r", (int,)),
        "lora_alpha": _value(words, "lora_alpha", NUMBER),
        "lora_dropout": _value(words, "lora_dropout", NUMBER),
        "use_rslora": _value(words, "use_rslora", (bool,)),
        "rank_pattern": _pattern(words, "rank_pattern", (int,)),
        "alpha_pattern": _pattern(words, "alpha_pattern", NUMBER),
        "layers_to_transform": _list(words, "layers_to_transform", int) or None,
        "modules_to_save": _list(words, "modules_to_save", str),
    }
    if targets != "all-linear" and not _list(words, "target_modules", str):
        raise AdapterError("target_modules must be a list of names")
    try:
        return LoRAConfig(**{key: value for key, value in settings.items() if value is not None})
    except ConfigError as error:
        raise AdapterError(printable(str(error))) from None


def _value(words: dict[str, Any], key: str, kinds: tuple[type, ...]) -> Any:
    value = words.get(key)
    if value is not None and not _is(value, kinds):
        raise AdapterError(f"{key} is {_shown(value)}, a {type(value).__name__}")
    return value


def _list(words: dict[str, Any], key: str, kind: type) -> list:
    values = words.get(key) or []
    if not isinstance(values, list) or not all(_is(value, (kind,)) for value in values):
        things = {int: "numbers", str: "names"}[kind]
        raise AdapterError(f"{key} must be a list of {things}, and is {_shown(values)}")
    return values


def _pattern(words: dict[str, Any], key: str, kinds: tuple[type, ...]) -> dict:
    pattern = words.get(key) or {}
    if not isinstance(pattern, dict) or not all(_is(value, kinds) for value in pattern.values()):
        raise AdapterError(f"{key} must give numbers to names, and is {_shown(pattern)}")
    # PEFT takes them for regular expressions; a plain name means the same there and here.
    if odd := [name for name in pattern if not re.fullmatch(r"[\w.-]+", name)]:
        raise AdapterError(f"{key} has the pattern {_shown(odd[0])}; it must hold names")
    return pattern


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _same(value: object, unused: object) -> bool:
    # To Python 0 is False, and 1 is True.
    return type(value) is type(unused) and value == unused


def printable(text: str, length: int = 400) -> str:
    """A stranger's text, cut short, with what a terminal would obey made visible."""
    text = text if len(text) <= length else text[:length] + "…"
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def _shown(value: object) -> str:
    return printable(repr(value), 80)


def _shortest_names(model: nn.Module, chosen: set[str]) -> list[str]:
    """The shortest ends of paths that name the chosen layers and no others."""
    # In GPT-2 the last name c_proj stands in attention and in the MLP: then attn.c_proj is written.
    others = {
        end
        for path, _ in model.named_modules()
        if path not in chosen and not any(ends_with(path, name) for name in ("base", "trained"))
        for end in path_suffixes(path)
    }
    return sorted(
        {next(end for end in path_suffixes(path) if end not in others) for path in chosen}
    )
