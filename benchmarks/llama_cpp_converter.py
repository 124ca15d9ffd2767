"""Compare the tensors of lit.export's GGUF with those of llama.cpp's own converter.

    python -m benchmarks.llama_cpp_converter

Downloads the source that llama-cpp-python is compiled from (77 MB), and lets its
convert_lora_to_gguf.py convert the PEFT folder of a small random model of each family that
lit.export knows. Exits with 1 if a name, a shape or a bit differs.
"""

import subprocess
import sys
import tarfile
import tempfile
from datetime import date
from pathlib import Path

import torch
from gguf import GGUFReader, Keys
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.llama_cpp import PACKAGE
from lit.exporting.gguf_lora import write_lora
from lit.exporting.gguf_targets import ARCHITECTURES
from lit.model.base import quiet
from lora.config import LoRAConfig
from lora.injection import inject, lora_layers
from lora.storage.adapter import save_adapter

SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
COMPARED = (Keys.General.ARCHITECTURE, Keys.General.TYPE, *vars(Keys.Adapter).values())
"""The metadata that llama.cpp reads of a LoRA file."""


def download_converter(folder: Path) -> Path:
    """Download llama.cpp's source and return the path of its converter."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", "llama-cpp-python", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/vendor/llama.cpp/convert_lora_to_gguf.py"))


def write_adapter(family: str, folder: Path) -> None:
    """Write a random base of a family, an adapter for it, and our GGUF of the adapter."""
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES))
    model.save_pretrained(folder / "base")
    inject(model, LoRAConfig(r=4, use_rslora=True))
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B)
    save_adapter(model, folder / "adapter", "base")
    write_lora(folder / "ours.gguf", model, "base")


def contents(file: Path) -> tuple[dict, dict]:
    """Return a GGUF file's compared metadata, and the bytes of its tensors."""
    reader = GGUFReader(file)
    metadata = {key: field.contents() for key, field in reader.fields.items() if key in COMPARED}
    tensors = {t.name: (t.tensor_type, t.shape.tolist(), t.data.tobytes()) for t in reader.tensors}
    return metadata, tensors


def main() -> int:
    """Run the comparison."""
    quiet()
    equal = True
    with tempfile.TemporaryDirectory() as name:
        converter = download_converter(Path(name))
        for family in ARCHITECTURES:
            folder = Path(name) / family
            write_adapter(family, folder)
            command = [sys.executable, str(converter), "--base", str(folder / "base")]
            command += ["--outtype", "f32", "--outfile", str(folder / "theirs.gguf")]
            command.append(str(folder / "adapter"))
            subprocess.run(command, check=True, capture_output=True)
            same = contents(folder / "ours.gguf") == contents(folder / "theirs.gguf")
            equal = equal and same
            print(f"{family:10} {'the same' if same else 'DIFFERS'}", flush=True)
    print(f"{date.today()}, {PACKAGE}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
