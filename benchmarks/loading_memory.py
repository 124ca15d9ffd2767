"""Measure the memory that loading and merging a model take.

    OMP_NUM_THREADS=2 python -m benchmarks.loading_memory [--source DIR] ["bfloat16 nf4" ...]

Makes a random llama of 2 GB in bfloat16, in shards of 500 MB, and an adapter. Each work is its own
process, whose anonymous memory (RssAnon, so on Linux) is polled: mapped pages of the model's
files are not in it, because Linux takes them back when memory is short. Prints a Markdown table.
``--source`` measures the code of another checkout.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MERGE = "merge"
WORKS = [
    *(
        f"{dtype} {kind}"
        for dtype in ("bfloat16", "float16", "float32")
        for kind in ("nf4", "int8")
    ),
    *("bfloat16 dense", "float16 dense", MERGE, f"{MERGE} float16"),
]
"""The dtype to load in and the quantization; or a merge, and the dtype to write if it differs."""
SECONDS = 0.002
"""Between two polls."""
ALLOWED = 1e9
"""Bytes that a process may take besides the model and two of its tensors: what it imports."""


def anonymous() -> int:
    """Return the anonymous memory of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@contextmanager
def peak_of_process() -> Iterator[list[int]]:
    """Yield a list that holds, at the end, the most anonymous memory in the meantime."""
    peaks, done = [anonymous()], threading.Event()

    def poll() -> None:
        while not done.wait(SECONDS):
            peaks[0] = max(peaks[0], anonymous())

    thread = threading.Thread(target=poll)
    thread.start()
    yield peaks
    done.set()
    thread.join()


def make(folder: Path) -> None:
    """Write the model, its tokenizer and an adapter that changes it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from lora.config import LoRAConfig
    from lora.injection import inject, lora_layers
    from lora.storage.adapter import save_adapter

    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 14}
    heads = {"num_attention_heads": 16, "num_key_value_heads": 4}
    config = LlamaConfig(vocab_size=32000, tie_word_embeddings=False, **sizes, **heads)
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder / "base", max_shard_size="500MB")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=letters[0])
    tokenizer.save_pretrained(folder / "base")
    inject(model, LoRAConfig(r=8))
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=1e-3)
    save_adapter(model, folder / "adapter", str(folder / "base"))
    tokenizer.save_pretrained(folder / "adapter")


def work(name: str, folder: Path) -> None:
    """Do one work in this process; print the bytes after the imports and at the peak, and seconds.

    For a load, also print the bytes of the model and of the largest tensor.
    """
    import bitsandbytes  # noqa: F401  bitsandbytes and transformers count as imports
    import torch

    from lit.exporting.merging import merge_into
    from lit.model.base import load_base, quiet

    quiet()
    imports, start = anonymous(), time.perf_counter()
    first, _, second = name.partition(" ")
    with peak_of_process() as peaks:
        if first == MERGE:
            dtype = getattr(torch, second) if second else None
            merge_into(folder / "merged", folder / "adapter", dtype=dtype)
        else:
            dtype = getattr(torch, first)
            model = load_base(
                str(folder / "base"), None, dtype, None if second == "dense" else second
            )
    seconds = time.perf_counter() - start
    size = largest = 0
    if first != MERGE:
        size = sum(p.nbytes for p in model.parameters())
        largest = max(p.numel() for p in model.parameters()) * dtype.itemsize
    print(imports, peaks[0], round(seconds), size, largest)


def run(source: Path, *arguments: str) -> str:
    """Run this script in a process of its own, on the code of a checkout; return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=source, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout.strip()


def main() -> None:
    """Measure the works named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Measure the memory of loading and merging.")
    parser.add_argument("works", nargs="*", choices=[[], *WORKS], metavar="WORK")
    parser.add_argument("--source", type=Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        return (
            make(options.folder) if options.step == "make" else work(options.step, options.folder)
        )
    print(f"{platform.platform()}, {os.cpu_count()} cores, {date.today()}\n")
    print("| work | model, MB | allowed, MB | peak, MB | of it imports, MB | s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        run(ROOT, "--folder", folder, "--step", "make")
        for name in options.works or WORKS:
            line = run(options.source, "--folder", folder, "--step", name).splitlines()[-1]
            imports, peak, seconds, size, largest = (int(value) for value in line.split())
            allowed = size + 2 * largest + ALLOWED if size else 0
            row = [
                f"{value / 1e6:,.0f}" if value else "" for value in (size, allowed, peak, imports)
            ]
            print(f"| {name} | {' | '.join(row)} | {seconds} |", flush=True)
            for path in sorted(Path(folder, "merged").glob("*")):
                path.unlink()
    return None


if __name__ == "__main__":
    main()
