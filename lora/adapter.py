"""An adapter as a folder in PEFT's spelling: adapter_model.safetensors and adapter_config.json."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from lora.base import features, is_transposed
from lora.config import ConfigError, LoRAConfig
from lora.inject import adapted, ends_with, inject, match
from lora.layer import LoRALinear

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."

# What PEFT may write that this package does not do, with the values that mean "not used".
UNSUPPORTED: dict[str, tuple] = {
    "use_dora": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None, []),
    "layers_pattern": (None, [], ""),
    "exclude_modules": (None, []),
    "layer_replication": (None, []),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, [], {}),
    "megatron_config": (None, {}),
}


class AdapterError(ConfigError):
    """A folder is not an adapter for this model; the message says how it differs."""


def save_adapter(
    model: nn.Module, directory: str | Path, base: str, revision: str | None = None
) -> Path:
    """Write a model's adapter; each file appears whole or not at all.

    Args:
        model: A model with adapters.
        directory: Made where it is not.
        base: The base model's hub name or folder, for whoever loads the adapter.
        revision: The base model's revision on the hub.

    Returns:
        The directory.

    Raises:
        AdapterError: The model has no adapters, or a weight is not finite.
    """
    layers = dict(adapted(model))
    if not layers:
        raise AdapterError("this model has no adapter to save")
    weights = {
        f"{PREFIX}{path}.{name}.weight": parameter.detach().cpu().float().contiguous()
        for path, layer in layers.items()
        for name, parameter in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B))
    }
    if broken := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise AdapterError(f"{broken[0]} holds NaN or infinity; nothing was saved")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(_peft_config(model, layers, base, revision), indent=2, ensure_ascii=False)
    write_whole(directory / CONFIG, text + "\n")
    return directory


def load_adapter(model: nn.Module, directory: str | Path) -> LoRAConfig:
    """Check an adapter folder against a model, then put it on the model.

    Args:
        model: The base model; untouched when the folder does not fit it.
        directory: A folder made here or by PEFT (plain LoRA and rsLoRA).

    Returns:
        The adapter's settings.

    Raises:
        AdapterError: A file is missing or broken, or a name, shape, dtype or value is wrong.
    """
    directory = Path(directory)
    config = _lora_config(read_config(directory))
    expected = _expected_shapes(model, config)
    weights = _read_weights(directory / WEIGHTS, expected)
    inject(model, config)
    with torch.no_grad():
        for path, layer in adapted(model):
            layer.lora_A.copy_(weights[f"{PREFIX}{path}.lora_A.weight"])
            layer.lora_B.copy_(weights[f"{PREFIX}{path}.lora_B.weight"])
    return config


def read_config(directory: str | Path) -> dict[str, Any]:
    """The adapter_config.json of a folder, as PEFT spells it.

    Raises:
        AdapterError: There is none, or it is not a JSON object about LoRA.
    """
    path = Path(directory) / CONFIG
    if not path.is_file():
        raise AdapterError(f"{directory} has no {CONFIG}: it is not an adapter folder")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise AdapterError(f"{path} holds {type(config).__name__}, not a JSON object")
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{path}: peft_type is {config.get('peft_type')!r}; only LORA loads")
    return config


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _peft_config(
    model: nn.Module, layers: dict[str, LoRALinear], base: str, revision: str | None
) -> dict[str, Any]:
    config = next(iter(layers.values())).config
    alpha = config.lora_alpha
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": revision,
        "r": config.r,
        # Ollama's converter reads an integer only.
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": _target_names(model, set(layers)),
        "use_rslora": config.use_rslora,
        "use_dora": False,
        "bias": "none",
        "fan_in_fan_out": any(is_transposed(layer.base) for layer in layers.values()),
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
    }


def _target_names(model: nn.Module, chosen: set[str]) -> list[str]:
    """The shortest ends of paths that name the chosen layers and no others."""
    # In GPT-2 the last name c_proj stands in attention and in the MLP: then attn.c_proj is written.
    others = {
        path
        for path, module in model.named_modules()
        if path not in chosen and not path.endswith(".base")
    }
    names: set[str] = set()
    for path in chosen:
        parts = path.split(".")
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            if not any(ends_with(other, name) for other in others):
                names.add(name)
                break
    return sorted(names)


def _lora_config(config: dict[str, Any]) -> LoRAConfig:
    for key, unused in UNSUPPORTED.items():
        if config.get(key) not in unused:
            raise AdapterError(f"{CONFIG}: {key} is {config[key]!r}, which is not supported")
    targets = config.get("target_modules")
    if isinstance(targets, str) and targets != "all-linear":
        raise AdapterError(
            f"{CONFIG}: target_modules is the pattern {targets[:80]!r}; it must be a list of names"
        )
    if not isinstance(targets, str) and not (
        isinstance(targets, list) and all(isinstance(name, str) for name in targets)
    ):
        raise AdapterError(f"{CONFIG}: target_modules must be a list of names")
    values = {
        key: config[key]
        for key in ("r", "lora_alpha", "lora_dropout", "use_rslora")
        if config.get(key) is not None
    }
    for key, value in values.items():
        kinds = {"r": (int,), "use_rslora": (bool,)}.get(key, (int, float))
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise AdapterError(f"{CONFIG}: {key} is {value!r}, a {type(value).__name__}")
    return LoRAConfig(target_modules=targets, **values)


def _expected_shapes(model: nn.Module, config: LoRAConfig) -> dict[str, tuple[int, int]]:
    shapes = {}
    for path, layer in match(model, config.target_modules).items():
        columns, rows = features(layer)
        shapes[f"{PREFIX}{path}.lora_A.weight"] = (config.r, columns)
        shapes[f"{PREFIX}{path}.lora_B.weight"] = (rows, config.r)
    return shapes


def _read_weights(path: Path, expected: dict[str, tuple[int, int]]) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise AdapterError(f"{path.parent} has no {WEIGHTS}")
    try:
        with safe_open(path, framework="pt") as file:
            found = set(file.keys())
            _compare_names(path, found, set(expected))
            for key, shape in expected.items():
                part = file.get_slice(key)
                if (given := tuple(part.get_shape())) != shape:
                    raise AdapterError(f"{path}: {key} has shape {given}; the model needs {shape}")
                if part.get_dtype() not in ("F32", "F16", "BF16"):
                    raise AdapterError(f"{path}: {key} is stored as {part.get_dtype()}")
            weights = {key: file.get_tensor(key) for key in expected}
    except SafetensorError as error:
        raise AdapterError(f"{path} is not a whole safetensors file: {error}") from None
    for key, value in weights.items():
        if not value.isfinite().all():
            raise AdapterError(f"{path}: {key} holds NaN or infinity")
    return weights


def _compare_names(path: Path, found: set[str], expected: set[str]) -> None:
    for kind, names in (("lacks", expected - found), ("has unknown", found - expected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise AdapterError(
                f"{path} {kind} {sorted(names)[0][:200]}{more}: it was made for another model"
            )
