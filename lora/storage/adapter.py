"""An adapter folder: adapter_model.safetensors and adapter_config.json, in PEFT's format."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from lora.config import LoRAConfig
from lora.injection import inject, lora_layers
from lora.storage.files import replacing, write_text
from lora.storage.metadata import WEIGHTS, file_metadata, sort_metadata
from lora.storage.peft_format import AdapterError, from_peft, printable, to_peft
from lora.storage.peft_tensors import (
    adapter_parameters,
    check_portable,
    check_tied,
    expected_shapes,
    to_portable,
)
from lora.storage.sizes import check_sizes
from lora.targets import known_exclusions

__all__ = ["AdapterError", "load_adapter", "read_config", "save_adapter"]

CONFIG = "adapter_config.json"
MAX_CONFIG = 2**20
"""Bytes; the names of twenty thousand layers fit."""
HEADER_PER_TENSOR = 512
"""Header bytes allowed for each tensor that the model needs; about 150 are usual."""


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
    if not any(lora_layers(model)):
        raise AdapterError("this model has no adapter to save")
    for key, value in adapter_parameters(model).items():
        if not value.isfinite().all():
            raise AdapterError(f"{key} holds NaN or infinity; nothing was saved")
    r, lora_alpha, weights = to_portable(model)
    # A relative path with .. depends on the folder it is read from.
    base = str(Path(base).resolve()) if ".." in Path(base).parts else base
    settings = to_peft(model, r, lora_alpha, base, revision)
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with replacing(directory / WEIGHTS) as new:
        save_file(weights, new, metadata=file_metadata(model, quantize))
        sort_metadata(new)
        written = _read_weights(new, {key: tuple(value.shape) for key, value in weights.items()})
        check_portable(model, r, lora_alpha, written)
    text = json.dumps(settings, indent=2, ensure_ascii=False)
    write_text(directory / CONFIG, text + "\n")
    return directory


def load_adapter(model: nn.Module, directory: str | Path) -> LoRAConfig:
    """Check an adapter folder against a model, then inject the adapter.

    Args:
        model: The base model; it is changed only after every check has passed.
        directory: A folder written by this package or by PEFT.

    Returns:
        The adapter's settings.

    Raises:
        AdapterError: A file is missing or broken, or a name, shape, dtype or value is wrong, or the
            update is far larger than the weight it changes.
    """
    directory = Path(directory)
    settings = read_config(directory)
    try:
        config = from_peft(settings)
        # PEFT ignores names that match nothing.
        known = known_exclusions(model, config.exclude_modules)
        config = replace(config, exclude_modules=known)
        shapes = expected_shapes(model, config)
    except AdapterError as error:
        raise AdapterError(f"{directory / CONFIG}: {error}") from None
    weights = _read_weights(directory / WEIGHTS, shapes)
    check_tied(model, config, weights)
    check_sizes(model, config, weights)
    inject(model, config)
    with torch.no_grad():
        for key, parameter in adapter_parameters(model).items():
            parameter.copy_(weights[key])
    return config


def read_config(directory: str | Path) -> dict[str, Any]:
    """Return the content of a folder's adapter_config.json.

    Raises:
        AdapterError: There is none, or it is not a JSON object for LoRA.
    """
    path = Path(directory) / CONFIG
    if not path.is_file():
        raise AdapterError(f"{directory} has no {CONFIG}: it is not an adapter folder")
    if (size := path.stat().st_size) > MAX_CONFIG:
        raise AdapterError(f"{path} has {size} bytes; an adapter's settings are a few thousand")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise AdapterError(f"{path} is not a settings file: its JSON is nested too deep") from None
    except ValueError as error:
        raise AdapterError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise AdapterError(f"{path} holds {type(config).__name__}, not a JSON object")
    if config.get("peft_type") != "LORA":
        kind = printable(repr(config.get("peft_type")), 80)
        raise AdapterError(f"{path}: peft_type is {kind}; only LORA loads")
    return config


def _read_weights(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    if not path.is_file():
        pickled = (path.parent / "adapter_model.bin").exists()
        note = ", only adapter_model.bin, a pickle file, which is never opened" if pickled else ""
        raise AdapterError(f"{path.parent} has no {WEIGHTS}{note}")
    # The size of an untrusted header is checked before anything parses it.
    with path.open("rb") as raw:
        header = int.from_bytes(raw.read(8), "little")
    if path.stat().st_size > header > 2**16 + HEADER_PER_TENSOR * len(shapes):
        raise AdapterError(
            f"{path} has a header of {header} bytes, too many for the {len(shapes)} tensors "
            "that the model needs: it was made for another model"
        )
    try:
        with safe_open(path, framework="pt") as file:
            _compare_names(path, set(file.keys()), set(shapes))
            for key, shape in shapes.items():
                stored = file.get_slice(key)
                if (actual := tuple(stored.get_shape())) != shape:
                    raise AdapterError(f"{path}: {key} has shape {actual}; the model needs {shape}")
                if stored.get_dtype() not in ("F32", "F16", "BF16"):
                    raise AdapterError(
                        f"{path}: {key} is stored as {stored.get_dtype()}; F32, F16 and BF16 load"
                    )
            # Copies: the file stays mapped while a tensor of it lives, and Windows neither moves
            # nor replaces a mapped file.
            weights = {key: file.get_tensor(key).clone() for key in shapes}
    except SafetensorError as error:
        raise AdapterError(f"{path} is not a complete safetensors file: {error}") from None
    for key, value in weights.items():
        if not value.isfinite().all():
            raise AdapterError(f"{path}: {key} holds NaN or infinity")
    return weights


def _compare_names(path: Path, actual: set[str], expected: set[str]) -> None:
    for kind, names in (
        ("lacks", expected - actual),
        ("has the unknown tensor", actual - expected),
    ):
        if names:
            name = printable(min(names), 200)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise AdapterError(f"{path} {kind} {name}{more}: it was made for another model")
