"""A LoRA adapter as a GGUF file, for llama.cpp and what is built on it."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    MODEL_TENSOR,
    GGUFReader,
    GGUFType,
    GGUFWriter,
    Keys,
    LlamaFileType,
    get_tensor_name_map,
)
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from lit.model.tuned import base_config, base_of, load_tuned, stored_dtype
from lit.run.output import appearing, check_free
from lora.adapter import read_config
from lora.config import ConfigError
from lora.inject import lora_layers
from lora.peft_format import AdapterError, from_peft
from lora.peft_tensors import PREFIX, SUFFIX, check_portable, to_portable

MERGE = "use --format merged, and convert that folder by llama.cpp's convert_hf_to_gguf.py"


class Architecture(NamedTuple):
    """What llama.cpp calls a family of models, and how it keeps their weights."""

    kind: MODEL_ARCH
    paired: bool
    """Whether rows of queries and keys that rotary positions turn together stand side by side."""


ARCHITECTURES = {
    "llama": Architecture(MODEL_ARCH.LLAMA, paired=True),
    "mistral": Architecture(MODEL_ARCH.LLAMA, paired=True),
    "qwen2": Architecture(MODEL_ARCH.QWEN2, paired=False),
    "qwen3": Architecture(MODEL_ARCH.QWEN3, paired=False),
}
"""By transformers' model_type."""


class Place(NamedTuple):
    """Where a layer is in a GGUF file."""

    name: str
    order: Tensor
    """Which row of ours is each row there, (out,)."""


def write_gguf(file: Path, adapter: Path, base: str | None = None) -> int:
    """Write an adapter as a GGUF file.

    Args:
        file: Must not exist; it appears whole or not at all.
        adapter: The adapter's folder.
        base: The base model, if it is not where the adapter says.

    Returns:
        The number of layers written.

    Raises:
        ConfigError: The file is there, the adapter does not fit its base, or such a file cannot
            hold it, or holds something else when it is read again.
    """
    if file.is_dir():
        raise ConfigError(f"{file} is a folder, and a LoRA GGUF is one file: give NAME.gguf")
    check_free(file)
    # What cannot be written is known from two small files, before any weight is loaded.
    settings = from_peft(read_config(adapter))
    if settings.variant == "dora":
        raise ConfigError(f"{adapter} is DoRA, and GGUF has no place for its magnitudes: {MERGE}")
    if settings.modules_to_save:
        names = ", ".join(settings.modules_to_save)
        raise ConfigError(
            f"{adapter} has {names} trained in full, and GGUF has no place for whole layers: "
            f"{MERGE}"
        )
    architecture_of(base_config(adapter, base))
    model, _ = load_tuned(adapter, base, stored_dtype(adapter, base))
    with appearing(file) as new:
        write_lora(new, model, base_of(adapter, base)[0])
        with new.open("rb") as written:
            os.fsync(written.fileno())
    return sum(1 for _ in lora_layers(model))


def architecture_of(config: PretrainedConfig) -> Architecture:
    """How llama.cpp keeps a model.

    Raises:
        ConfigError: That is not known here.
    """
    if config.model_type not in ARCHITECTURES:
        raise ConfigError(
            f"the base is of type {config.model_type}, and --format gguf knows "
            f"{', '.join(ARCHITECTURES)}: {MERGE}"
        )
    return ARCHITECTURES[config.model_type]


def write_lora(file: Path, model: PreTrainedModel, base: str) -> None:
    """Write a model's adapters, and read them again to see that they compute the same.

    Raises:
        ConfigError: A layer has no place in such a file, or its tensors read back as others.
    """
    _, lora_alpha, tensors = to_portable(model)
    kind = MODEL_ARCH_NAMES[architecture_of(model.config).kind]
    writer = GGUFWriter(file, kind)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, lora_alpha)
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_base_model_count(1)
    # The last name only: where a folder lies on this machine is no one else's matter.
    writer.add_base_model_name(0, Path(base).name)
    for path, place in places(model).items():
        A, B = (tensors[key] for key in _keys(path))
        writer.add_tensor(f"{place.name}.weight.lora_a", A.numpy())
        writer.add_tensor(f"{place.name}.weight.lora_b", B[place.order].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _check(file, model, kind)


def places(model: PreTrainedModel) -> dict[str, Place]:
    """Where each adapted layer is in a GGUF file, by its path in the model.

    transformers turns row i of a head together with row i + half; llama.cpp keeps the two side
    by side in families that are ``paired``. B's rows are the weight's, so they move with them;
    A's columns are its inputs, which stay.

    Raises:
        ConfigError: A layer has no place there.
    """
    config, architecture = model.config, architecture_of(model.config)
    names = get_tensor_name_map(architecture.kind, config.num_hidden_layers)
    heads = {
        MODEL_TENSOR.ATTN_Q: config.num_attention_heads,
        MODEL_TENSOR.ATTN_K: config.num_key_value_heads,
    }
    found = {}
    for path, layer in lora_layers(model):
        known = names.get_type_and_name(path)
        if known is None:
            kind = MODEL_ARCH_NAMES[architecture.kind]
            raise ConfigError(f"{path} has no place in a GGUF file of {kind}: {MERGE}")
        order = torch.arange(layer.out_features)
        if architecture.paired and known[0] in heads:
            order = order.view(heads[known[0]], 2, -1).transpose(1, 2).flatten()
        found[path] = Place(known[1], order)
    return found


def _check(file: Path, model: PreTrainedModel, kind: str) -> None:
    reader = GGUFReader(file)
    told = {key: reader.fields[key].contents() for key in (Keys.General.TYPE, Keys.Adapter.TYPE)}
    if [*told.values(), reader.fields[Keys.General.ARCHITECTURE].contents()] != [
        *("adapter", "lora"),
        kind,
    ]:
        raise AdapterError(f"{file.name} reads back as {told}; nothing was written")
    # The reader maps the file; a copy outlives it.
    found = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    tensors: dict[str, Tensor] = {}
    for path, place in places(model).items():
        A, B = _keys(path)
        tensors[A] = found.pop(f"{place.name}.weight.lora_a")
        tensors[B] = found.pop(f"{place.name}.weight.lora_b")[place.order.argsort()]
    if found:
        raise AdapterError(f"{file.name} reads back with {min(found)} too; nothing was written")
    alpha = float(reader.fields[Keys.Adapter.LORA_ALPHA].contents())
    r = next(iter(tensors.values())).shape[0]
    check_portable(model, r, alpha, tensors)


def _keys(path: str) -> tuple[str, str]:
    return f"{PREFIX}{path}.{SUFFIX['lora_A']}", f"{PREFIX}{path}.{SUFFIX['lora_B']}"
