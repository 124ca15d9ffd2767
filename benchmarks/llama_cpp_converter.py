"""The tensors of lit.export's GGUF beside those of llama.cpp's own converter.

    python benchmarks/llama_cpp_converter.py

Downloads the source that llama-cpp-python is compiled from (77 MB), and lets the converter in it,
convert_lora_to_gguf.py, turn the PEFT folder of a small random model of each family that lit.export
knows into GGUF. Exits 1 where a name, a shape or a bit is another.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "llama-cpp-python==0.3.36"
SMALL = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def fetch(folder: Path) -> Path:
    """The converter, unpacked with the rest of llama.cpp's source."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", "llama-cpp-python", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("*/vendor/llama.cpp/convert_lora_to_gguf.py"))


def make(family: str, folder: Path) -> None:
    """A random base of a family, an adapter on it, and our GGUF of that."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from lit.exporting.gguf_lora import write_lora
    from lora.adapter import save_adapter
    from lora.config import LoRAConfig
    from lora.inject import inject, lora_layers

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SMALL))
    model.save_pretrained(folder / "base")
    inject(model, LoRAConfig(r=4, use_rslora=True))
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B)
    save_adapter(model, folder / "adapter", "base")
    write_lora(folder / "ours.gguf", model, "base")


def same(ours: Path, theirs: Path) -> bool:
    """Whether two files hold the same for llama.cpp, to the bit."""
    from gguf import GGUFReader, Keys

    told = (Keys.General.ARCHITECTURE, Keys.General.TYPE, *vars(Keys.Adapter).values())
    readers = [GGUFReader(path) for path in (ours, theirs)]
    words = [
        {key: field.contents() for key, field in reader.fields.items() if key in told}
        for reader in readers
    ]
    tensors = [
        {t.name: (t.tensor_type, t.shape.tolist(), t.data.tobytes()) for t in reader.tensors}
        for reader in readers
    ]
    return words[0] == words[1] and tensors[0] == tensors[1]


def main(args: list[str] | None = None) -> int:
    """Run the comparison."""
    argparse.ArgumentParser(description="lit.export beside llama.cpp's converter").parse_args(args)
    sys.path.insert(0, str(ROOT))
    from lit.exporting.gguf_targets import ARCHITECTURES
    from lit.model.base import quiet

    quiet()
    found: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as name:
        converter = fetch(Path(name))
        for family in ARCHITECTURES:
            folder = Path(name) / family
            make(family, folder)
            command = [sys.executable, str(converter), "--base", str(folder / "base")]
            command += ["--outtype", "f32", "--outfile", str(folder / "theirs.gguf")]
            command.append(str(folder / "adapter"))
            subprocess.run(command, check=True, capture_output=True)
            found[family] = same(folder / "ours.gguf", folder / "theirs.gguf")
            print(f"{family:10} {'the same' if found[family] else 'DIFFERS'}", flush=True)
    print(f"{date.today()}, {PACKAGE}")
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
