"""An adapter folder: adapter_model.safetensors and adapter_config.json, in PEFT's format."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lora.config import ConfigError, LoRAConfig
from lora.injection import adapted_layers, inject
from lora.messages import tr
from lora.storage.files import replacing, write_text
from lora.storage.metadata import WEIGHTS, file_metadata, sort_metadata
from lora.storage.mismatch import (
    adapted_paths,
    check_layer_kinds,
    check_names_and_shapes,
    check_vocabulary,
    made_for,
)
from lora.storage.peft_format import AdapterError, from_peft, printable, to_peft
from lora.storage.peft_tensors import (
    adapter_parameters,
    check_portable,
    expected_shapes,
    tied_tensors,
    to_portable,
)
from lora.storage.sizes import check_sizes
from lora.storage.tensor_file import read_tensors, stored_shapes
from lora.targets import known_exclusions

__all__ = ["AdapterError", "load_adapter", "read_config", "save_adapter"]

CONFIG = "adapter_config.json"
MAX_CONFIG = 2**20
"""Bytes; the names of twenty thousand layers fit."""


def save_adapter(
    model: nn.Module,
    directory: str | Path,
    base: str,
    revision: str | None = None,
    quantize: str | None = None,
) -> Path:
    """Write a model's adapter, read it back, compare it, and only then replace the old one.

    Each file is replaced completely or not at all. Its form is one that most tools read: see
    ``lora.storage.peft_tensors.to_portable``.

    Args:
        model: A model with adapters.
        directory: The folder; it is created if needed.
        base: The base model's hub name or folder; it is written into the adapter's settings.
        revision: The base model's revision on the hub.
        quantize: How the base was quantized in training; None for as it is in ``model``.

    Returns:
        The directory.

    Raises:
        AdapterError: The model has no adapters, a weight is not finite, or the tensors that were
            written compute another update than the layers.
    """
    if not any(adapted_layers(model)):
        raise AdapterError(tr("this model has no adapter to save"))
    for key, value in adapter_parameters(model).items():
        if not value.isfinite().all():
            raise AdapterError(tr("{key} holds NaN or infinity; nothing was saved", key=key))
    r, lora_alpha, weights = to_portable(model)
    # A relative path with .. depends on the folder it is read from.
    base = str(Path(base).resolve()) if ".." in Path(base).parts else base
    settings = to_peft(model, r, lora_alpha, base, revision)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / WEIGHTS) as new:
        save_file(weights, new, metadata=file_metadata(model, quantize))
        sort_metadata(new)
        written = read_tensors(new, weights)
        check_portable(model, r, lora_alpha, written)
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    write_text(directory / CONFIG, text + "\n")
    return directory


def load_adapter(
    model: nn.Module, directory: str | Path, lora_dropout: float | None = None
) -> LoRAConfig:
    """Put a saved adapter on a base model, after checking every tensor of it.

    Args:
        model: The base model; it is changed only after every check has passed.
        directory: A folder written by this package or by PEFT.
        lora_dropout: The dropout of further training; None for the adapter's own.

    Returns:
        The adapter's settings.

    Raises:
        AdapterError: A file is missing or broken, or a name, shape, dtype or value is wrong, or the
            update is far larger than the weight it changes.
    """
    config = fitting_config(model, directory)
    if lora_dropout is not None:
        config = replace(config, lora_dropout=lora_dropout)
    weights = read_tensors(Path(directory) / WEIGHTS, expected_shapes(model, config))
    check_sizes(model, config, weights)
    inject(model, config)
    with torch.no_grad():
        for key, parameter in adapter_parameters(model).items():
            parameter.copy_(weights[key])
    return config


def fitting_config(model: nn.Module, directory: str | Path) -> LoRAConfig:
    """Return the settings of a saved adapter, after checking that it fits a model.

    Args:
        model: The base model, without adapters; on the meta device, weights are not needed.
        directory: A folder written by this package or by PEFT.

    Raises:
        AdapterError: A file is missing or broken, or a name or a shape is wrong.
    """
    directory = Path(directory)
    settings = read_config(directory)
    try:
        config, shapes = _known(model, from_peft(settings), settings)
    except AdapterError as error:
        raise AdapterError(f"{directory / CONFIG}: {error}") from None
    path = directory / WEIGHTS
    stored = stored_shapes(path, len(shapes))
    try:
        check_vocabulary(model, stored)
        config = _as_stored(model, config, path, stored)
        shapes = expected_shapes(model, config)
        check_layer_kinds(model, adapted_paths(stored.keys() - shapes.keys()))
        check_names_and_shapes(stored, shapes, settings)
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from None
    return config


def read_config(directory: str | Path) -> dict[str, Any]:
    """Return the content of a folder's adapter_config.json.

    Raises:
        AdapterError: There is none, or it is not a JSON object for LoRA.
    """
    path = Path(directory) / CONFIG
    if not path.is_file():
        raise AdapterError(
            tr(
                "{directory} has no {config}: it is not an adapter folder",
                directory=directory,
                config=CONFIG,
            )
        )
    if (size := path.stat().st_size) > MAX_CONFIG:
        raise AdapterError(
            tr(
                "{path} has {size} bytes; an adapter's settings are a few thousand",
                path=path,
                size=size,
            )
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise AdapterError(
            tr("{path} is not a settings file: its JSON is nested too deep", path=path)
        ) from None
    except ValueError as error:
        raise AdapterError(tr("{path} is not JSON: {error}", path=path, error=error)) from None
    if not isinstance(config, dict):
        raise AdapterError(
            tr("{path} holds {kind}, not a JSON object", path=path, kind=type(config).__name__)
        )
    if config.get("peft_type") != "LORA":
        kind = printable(repr(config.get("peft_type")), 80)
        raise AdapterError(tr("{path}: peft_type is {kind}; only LORA loads", path=path, kind=kind))
    return config


def _known(
    model: nn.Module, config: LoRAConfig, settings: dict[str, Any]
) -> tuple[LoRAConfig, dict[str, tuple[int, ...]]]:
    """Return a config and the shapes that it asks for, or tell why the model has no such layers."""
    try:
        # PEFT ignores names that match nothing.
        known = known_exclusions(model, config.exclude_modules)
        config = replace(config, exclude_modules=known)
        return config, expected_shapes(model, config)
    except ConfigError as error:
        named = config.target_modules
        check_layer_kinds(model, [] if isinstance(named, str) else named)
        raise AdapterError(f"{made_for(settings)}: {printable(str(error))}") from None


def _as_stored(
    model: nn.Module, config: LoRAConfig, path: Path, stored: dict[str, tuple[int, ...]]
) -> LoRAConfig:
    """Return a config by which tied layers train as one matrix or apart, as in their file."""
    groups = tied_tensors(model, config)
    same = all(stored.keys() >= set(group) for group in groups) and all(
        torch.equal(first, other)
        for first, *others in (read_tensors(path, group).values() for group in groups)
        for other in others
    )
    return config if same else replace(config, ensure_weight_tying=False)
