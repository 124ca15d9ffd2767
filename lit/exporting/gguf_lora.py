"""Write a LoRA adapter as a GGUF file, for llama.cpp and the tools built on it."""

import os
from pathlib import Path

import torch
from gguf import (
    MODEL_ARCH_NAMES,
    GGUFReader,
    GGUFType,
    GGUFWriter,
    Keys,
    LlamaFileType,
)
from torch import Tensor
from transformers import PreTrainedModel

from lit.exporting.gguf_targets import MERGE, architecture_of, target_tensors
from lit.exporting.modelfile import modelfile
from lit.messages import tr
from lit.model.tuned import base_config, base_of, load_tuned, stored_dtype
from lit.run.console import print_rank0
from lit.run.output import check_free, creating
from lora.config import ConfigError
from lora.injection import lora_layers
from lora.storage.adapter import read_config
from lora.storage.files import write_text
from lora.storage.peft_format import AdapterError, from_peft
from lora.storage.peft_tensors import PREFIX, SUFFIX, check_portable, to_portable

MODELFILE = ".Modelfile"
"""What the name of a Modelfile beside a GGUF file ends with."""


def write_gguf(file: Path, adapter: Path, base: str | None = None, ollama: bool = False) -> int:
    """Write an adapter as a GGUF file.

    Args:
        file: The file to make, atomically; it must not exist.
        adapter: The adapter's folder.
        base: The base model, if it is not where the adapter says.
        ollama: Whether to write a Modelfile beside the file: the base in a folder of its own name
            beside them, and the adapter on it.

    Returns:
        The number of layers written.

    Raises:
        ConfigError: The file exists, the adapter does not fit its base, a GGUF file cannot hold
            the adapter, or the written file reads back differently.
    """
    if file.is_dir():
        raise ConfigError(
            tr(
                "{file} is a folder, but a LoRA GGUF is one file: give --output NAME.gguf",
                file=file,
            )
        )
    check_free(file)
    if ollama:
        check_free(file.with_suffix(MODELFILE))
    # Two small files show whether the adapter can be written, before weights are loaded.
    settings = from_peft(content := read_config(adapter))
    if content.get("target_parameters"):
        raise ConfigError(
            tr(
                "{adapter} is on experts, which a LoRA GGUF is not written for: {merge}",
                adapter=adapter,
                merge=tr(MERGE),
            )
        )
    if settings.variant == "dora":
        raise ConfigError(
            tr(
                "{adapter} is DoRA, and a LoRA GGUF cannot hold its magnitudes: {merge}",
                adapter=adapter,
                merge=tr(MERGE),
            )
        )
    if settings.modules_to_save:
        names = ", ".join(settings.modules_to_save)
        raise ConfigError(
            tr(
                "{adapter} has {names} trained in full, and a LoRA GGUF cannot hold full "
                "layers: {merge}",
                adapter=adapter,
                names=names,
                merge=tr(MERGE),
            )
        )
    architecture_of(base_config(adapter, base))
    print_rank0(tr("export loading the model …"))
    model, tokenizer = load_tuned(adapter, base, stored_dtype(adapter, base))
    name = base_of(adapter, base)[0]
    # What a Modelfile cannot hold is found before anything is written.
    text = modelfile(model, tokenizer, f"./{Path(name).name}", f"./{file.name}") if ollama else ""
    with creating(file) as new:
        write_lora(new, model, name)
        with new.open("rb+") as written:
            os.fsync(written.fileno())
    if ollama:
        write_text(file.with_suffix(MODELFILE), text)
    return sum(1 for _ in lora_layers(model))


def write_lora(file: Path, model: PreTrainedModel, base: str) -> None:
    """Write a model's adapters, then read the file back and check their updates.

    Args:
        file: The file to write.
        model: A model with adapters.
        base: The base model's name or folder; the file gets its last part.

    Raises:
        ConfigError: A layer has no tensor in such a file, or the file reads back differently.
    """
    _, lora_alpha, tensors = to_portable(model)
    kind = MODEL_ARCH_NAMES[architecture_of(model.config).kind]
    writer = GGUFWriter(file, kind)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, lora_alpha)
    writer.add_file_type(LlamaFileType.ALL_F32)
    writer.add_base_model_count(1)
    # Only the last part: a shared file must not reveal folders of this machine.
    writer.add_base_model_name(0, Path(base).name)
    for path, target in target_tensors(model).items():
        A, B = (tensors[key] for key in _keys(path))
        writer.add_tensor(f"{target.name}.weight.lora_a", A.numpy())
        writer.add_tensor(f"{target.name}.weight.lora_b", B[target.row_order].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _check_file(file, model, kind)


def _check_file(file: Path, model: PreTrainedModel, kind: str) -> None:
    reader = GGUFReader(file)
    expected = {
        Keys.General.TYPE: "adapter",
        Keys.Adapter.TYPE: "lora",
        Keys.General.ARCHITECTURE: kind,
    }
    written = {key: reader.fields[key].contents() for key in expected}
    if written != expected:
        raise AdapterError(
            tr(
                "{name} reads back as {written}, so nothing was written",
                name=file.name,
                written=written,
            )
        )
    # The reader maps the file into memory, so the tensors are copied.
    found = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    tensors: dict[str, Tensor] = {}
    for path, target in target_tensors(model).items():
        A, B = _keys(path)
        tensors[A] = found.pop(f"{target.name}.weight.lora_a")
        tensors[B] = found.pop(f"{target.name}.weight.lora_b")[target.row_order.argsort()]
    if found:
        raise AdapterError(
            tr(
                "{name} reads back with an extra tensor, {found}, so nothing was written",
                name=file.name,
                found=min(found),
            )
        )
    alpha = float(reader.fields[Keys.Adapter.LORA_ALPHA].contents())
    r = next(iter(tensors.values())).shape[0]
    check_portable(model, r, alpha, tensors)


def _keys(path: str) -> tuple[str, str]:
    """Return the names of a layer's A and B in PEFT's format."""
    return f"{PREFIX}{path}.{SUFFIX['lora_A']}", f"{PREFIX}{path}.{SUFFIX['lora_B']}"
