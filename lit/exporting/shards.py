"""Merge an adapter into a checkpoint tensor by tensor: the same files, and little memory."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from torch import Tensor, nn

from lit.messages import tr
from lora.config import ConfigError
from lora.full_layers import FullLayer, untied_layers
from lora.replacement import Replacement, replace_module, replacements
from lora.variants.experts import LoRAExperts

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CODES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""What a safetensors file calls the dtypes that are converted; other tensors are copied."""


@dataclass(frozen=True)
class Checkpoint:
    """The safetensors files of a base model on this machine.

    Args:
        shards: The path of each file by its name.
        index: Which tensor is in which file; None if there is one file.
        config: The path of config.json.
        generation_config: The path of generation_config.json, if there is one.
    """

    shards: dict[str, Path]
    index: dict[str, Any] | None
    config: Path
    generation_config: Path | None


def find_checkpoint(base: str, revision: str | None) -> Checkpoint | None:
    """Return the files of a base model that was loaded, or None if it has no safetensors."""

    def find(name: str) -> Path | None:
        if (folder := Path(base)).is_dir():
            return folder / name if (folder / name).is_file() else None
        cached = try_to_load_from_cache(base, name, revision=revision)
        return Path(cached) if isinstance(cached, str) else None

    index, names = None, [SINGLE]
    if find(SINGLE) is None and (path := find(INDEX)) is not None:
        index = json.loads(path.read_text(encoding="utf-8"))
        names = sorted(set(index["weight_map"].values()))
        # They become names of new files.
        if not all(Path(name).name == name and name.endswith(".safetensors") for name in names):
            return None
    shards = {name: path for name in names if (path := find(name)) is not None}
    if len(shards) < len(names) or (config := find("config.json")) is None:
        return None
    return Checkpoint(shards, index, config, find("generation_config.json"))


def checkpoint_size(base: str, revision: str | None) -> int:
    """Return the bytes of the weights of a base model that was loaded."""
    checkpoint = find_checkpoint(base, revision)
    return sum(path.stat().st_size for path in checkpoint.shards.values()) if checkpoint else 0


def changed_layers(model: nn.Module) -> dict[str, tuple[str, Replacement]]:
    """Return the path and the layer of each parameter that an adapter changes, by its name."""
    return {
        f"{path}.{name}": (path, layer)
        for path, layer in replacements(model)
        for name in _changed_parameters(layer)
    }


def _changed_parameters(layer: Replacement) -> list[str]:
    """Return the names of the parameters of the base that a layer changes."""
    if isinstance(layer, LoRAExperts):
        return [name for name, _ in layer.updates()]
    return list(layer.trained) if isinstance(layer, FullLayer) else ["weight"]


def why_not(model: nn.Module, checkpoint: Checkpoint) -> str | None:
    """Return why an adapter cannot be merged into files tensor by tensor, or None if it can.

    Every parameter that it changes must be in the files under the name that it has in the model,
    with the same values: then no conversion lies between the two.
    """
    if untied := untied_layers(model):
        return tr(
            "{untied} was trained apart from the layer that shares its matrix", untied=untied[0]
        )
    parameters = {
        name: layer.original().get_parameter(name.rpartition(".")[2])
        for name, (_, layer) in changed_layers(model).items()
    }
    # Layers with tied weights have two names and often one tensor.
    missing = {id(parameter): name for name, parameter in parameters.items()}
    for shard in checkpoint.shards.values():
        with safe_open(shard, framework="pt") as file:
            for name in parameters.keys() & set(file.keys()):
                stored, parameter = file.get_tensor(name), parameters[name]
                if stored.shape != parameter.shape or not stored.to(parameter).equal(parameter):
                    return tr("transformers converts {name} when it loads it", name=name)
                missing.pop(id(parameter), None)
    return (
        tr("its files do not call a weight {values}", values=min(missing.values()))
        if missing
        else None
    )


def write_merged(
    model: nn.Module, checkpoint: Checkpoint, folder: Path, dtype: torch.dtype
) -> None:
    """Write the files of a base with an adapter's changes; every other tensor is copied.

    Args:
        model: The base with the adapter, loaded from the files in their dtype. It is of no use
            afterwards: each adapted layer is freed when its weight is written.
        checkpoint: The files, into which the adapter can be merged: see ``why_not``.
        folder: The folder to create.
        dtype: The dtype of the written weights.

    Raises:
        ConfigError: A written weight is not finite.
    """
    changed, size = changed_layers(model), 0

    def merged(name: str, stored: Tensor) -> Tensor:
        if name not in changed:
            return stored
        path, layer = changed.pop(name)
        name = name.rpartition(".")[2]
        if isinstance(layer, FullLayer):
            return layer.trained[name].detach()
        # In the finer dtype of the two, so that the weight is rounded once, when it is written.
        if (finer := torch.promote_types(stored.dtype, dtype)) != stored.dtype:
            layer.to(finer)
        replace_module(model, path, nn.Identity())
        if isinstance(layer, LoRAExperts):
            return layer.merged_parameter(name)
        return layer.folded().get_parameter(name).detach()

    folder.mkdir()
    for name, path in checkpoint.shards.items():
        size += _write(path, folder / name, dtype, merged)
    if checkpoint.index is not None:
        metadata = (checkpoint.index.get("metadata") or {}) | {"total_size": size}
        _write_json(folder / INDEX, checkpoint.index | {"metadata": metadata})
    config = json.loads(checkpoint.config.read_text(encoding="utf-8"))
    config.setdefault("dtype", config.pop("torch_dtype", ""))
    _set_dtype(config, str(dtype).removeprefix("torch."))
    _write_json(folder / "config.json", config)
    if (generation := checkpoint.generation_config) is not None:
        shutil.copyfile(generation, folder / generation.name)


def _write(
    source: Path, target: Path, dtype: torch.dtype, merged: Callable[[str, Tensor], Tensor]
) -> int:
    """Write a file tensor by tensor, as safetensors itself cannot; return the tensors' bytes."""
    with safe_open(source, framework="pt") as file, target.open("wb") as out:
        header: dict[str, Any] = {"__metadata__": file.metadata() or {"format": "pt"}}
        names, sizes, start = file.keys(), {}, 0
        for name in names:
            stored = file.get_tensor(name)
            width = dtype.itemsize if stored.dtype in CODES else stored.itemsize
            sizes[name] = width, stored.numel() * width
        # Wider elements first, as in every safetensors file: none is misaligned.
        for name, (_, size) in sorted(sizes.items(), key=lambda item: (-item[1][0], item[0])):
            part = file.get_slice(name)
            code = CODES[dtype] if part.get_dtype() in CODES.values() else part.get_dtype()
            offsets = [start, start + size]
            header[name] = {"dtype": code, "shape": part.get_shape(), "data_offsets": offsets}
            start += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        out.write(len(text).to_bytes(8, "little") + text)
        for name in list(header)[1:]:
            stored = file.get_tensor(name)
            tensor = merged(name, stored)
            if stored.dtype in CODES:
                tensor = tensor.to(dtype)
                if not tensor.isfinite().all():
                    raise ConfigError(not_finite(name))
            out.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return start


def not_finite(name: str) -> str:
    """Return the error about a merged weight that is not finite."""
    return tr(
        "the merged weight {name} is not finite, so nothing was written: check the base's "
        "weights, or train with a lower model.lr",
        name=name,
    )


def _set_dtype(config: dict[str, Any], dtype: str) -> None:
    """Set the dtype in a model's config and in those of its parts."""
    for name, value in config.items():
        if name in ("dtype", "torch_dtype"):
            config[name] = dtype
        elif isinstance(value, dict):
            _set_dtype(value, dtype)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
