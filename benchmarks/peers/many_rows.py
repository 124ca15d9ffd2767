"""Measure reading, tokenizing and storing a file of many rows, in a process of its own.

The rows are made up, and so is their tokenizer: a byte-level one of 8,000 tokens.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks.peers.contender import ROOT
from data.planning.plan import plan_epoch
from data.store import build_store

MAX_LENGTH = 512
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class PeakMemory(threading.Thread):
    """The most anonymous memory that this process had, in MB, sampled 20 times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0

    def run(self) -> None:
        """Sample until the process ends."""
        while True:
            self.megabytes = max(self.megabytes, anonymous_megabytes())
            time.sleep(0.05)


def anonymous_megabytes() -> float:
    """Return the memory of this process without pages of mapped files, in MB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if "RssAnon" in line)


def write_rows(path: Path, rows: int) -> None:
    """Write rows of made-up words: 10 to 30 in a question, 20 to 100 in an answer."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(3000)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            prompt = " ".join(rng.choices(words, k=rng.randint(10, 30)))
            response = " ".join(rng.choices(words, k=rng.randint(20, 100)))
            file.write(json.dumps({"prompt": prompt, "response": response}) + "\n")


def train_tokenizer(path: Path, rows: Path) -> None:
    """Train the tokenizer on the first 5,000 lines of a file of rows."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with rows.open(encoding="utf-8") as file:
        lines = (line for line, _ in zip(file, range(5000), strict=False))
        core.train_from_iterator(lines, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", chat_template=TEMPLATE
    )
    tokenizer.save_pretrained(path)


def measure_here(rows: Path, tokenizer_path: Path) -> dict[str, Any]:
    """Measure in this process; imports are done before the clock starts."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_path)
    imports = anonymous_megabytes()
    peak = PeakMemory()
    peak.start()
    cpu = sum(os.times()[:4])
    with tempfile.TemporaryDirectory(dir=rows.parent) as cache:
        start = time.perf_counter()
        store = build_store(rows, tokenizer, max_length=MAX_LENGTH, processes=1, cache=Path(cache))
        built = time.perf_counter()
        cpu = sum(os.times()[:4]) - cpu
        store = build_store(rows, tokenizer, max_length=MAX_LENGTH, cache=Path(cache))
        opened = time.perf_counter()
        own = peak.megabytes
        for epoch in range(3):
            plan_epoch(
                store.lengths,
                store.label_counts,
                batch_size=8,
                max_tokens=2048,
                seed=0,
                epoch=epoch,
            )
        planned = time.perf_counter()
        return {
            "rows": len(store),
            "tokens": int(store.lengths.sum()),
            "seconds": built - start,
            "cpu_s": cpu,
            "second_start_s": opened - built,
            "plan_s": (planned - opened) / 3,
            "imports_mb": imports,
            "peak_own_mb": own,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def measure(rows: int, folder: Path) -> dict[str, Any]:
    """Write rows and their tokenizer into a folder, and measure in a new process."""
    file, tokenizer = folder / f"{rows}.jsonl", folder / "tokenizer"
    write_rows(file, rows)
    if not tokenizer.exists():
        train_tokenizer(tokenizer, file)
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
    environment |= {"HF_DATASETS_CACHE": str(folder / "hf"), "TOKENIZERS_PARALLELISM": "false"}
    environment["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    command = [sys.executable, "-m", "benchmarks.peers.many_rows", str(file), str(tokenizer)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    file.unlink()
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(measure_here(*map(Path, sys.argv[1:]))))
