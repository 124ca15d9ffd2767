"""Measure what it saves to compute beginnings that rows share once.

    OMP_NUM_THREADS=2 python -m benchmarks.shared_beginnings [--steps 7] [CELL ...]

Trains the embedded model with dropout on the same micro-batches with shared and with separate
beginnings, in turns, and prints a Markdown table: tokens of the rows per second, medians and
quartiles over the micro-batches, and the ratio of the two times. Every token of every row counts in
both, computed or shared. The peak of memory of each way is that of a process of its own, the
kernel's (ru_maxrss).
"""

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.embedded_model import MODEL, load_adapted
from data.beginnings.find import find_beginnings
from data.planning.batch import collate
from data.planning.loader import neighbors_of
from data.planning.plan import plan_epoch
from data.store import build_store
from data.template import choose_template
from data.types import IGNORE, Batch, Example
from lit.device.memory import peak_memory, retain_heap
from lit.model.base import load_tokenizer
from lit.model.loss import summed_loss
from lit.packing.pack import share
from lora.config import LoRAConfig

TEXT = Path("data/corpora/general.ru-en.txt")
QUICKSTART = Path("data/corpora/printing3d.en.jsonl")
CONFIG = LoRAConfig(r=8, lora_alpha=16, lora_dropout=0.1)
LABELS = 20


def tokens_of_text(count: int) -> list[int]:
    """Return tokens of a text, over and over."""
    ids = load_tokenizer(MODEL, None)(TEXT.read_text("utf-8"), add_special_tokens=False)
    tokens: list[int] = ids["input_ids"]
    return (tokens * (1 + count // len(tokens)))[:count]


def with_beginnings(beginning: int, groups: int, rows: int, rest: int) -> list[Example]:
    """Return groups of rows that share a beginning, each with a rest of its own."""
    random, vocabulary = np.random.default_rng(0), np.array(sorted(set(tokens_of_text(20_000))))
    examples = []
    for _ in range(groups):
        start = random.choice(vocabulary, beginning).tolist()
        for _ in range(rows):
            ids = start + random.choice(vocabulary, rest).tolist()
            labels = [IGNORE] * (len(ids) - LABELS) + ids[-LABELS:]
            examples.append(Example(ids, labels))
    return examples


def quickstart() -> list[Example]:
    """Return the rows of the quickstart."""
    tokenizer = load_tokenizer(MODEL, None)
    choose_template(tokenizer, "auto", None)
    store = build_store(QUICKSTART, tokenizer, max_length=512)
    return [store.example(row) for row in range(len(store))]


CELLS: dict[str, tuple[Callable[[], list[Example]], int, bool]] = {
    "quickstart, batch 4": (quickstart, 4, False),
    "quickstart, batch 8": (quickstart, 8, False),
    "system text of 300 tokens, rows of 60": (lambda: with_beginnings(300, 1, 64, 60), 4, False),
    "the same, batch 8": (lambda: with_beginnings(300, 1, 64, 60), 8, False),
    "documents of 400 tokens, 10 questions of 40": (
        lambda: with_beginnings(400, 8, 10, 40),
        10,
        True,
    ),
    "nothing in common, rows of 150": (lambda: with_beginnings(0, 1, 64, 150), 4, False),
}
"""The rows of a cell, the rows of a micro-batch, and whether they are grouped by prefix."""


def batches(cell: str, steps: int) -> list[tuple[Batch, Batch]]:
    """Return micro-batches with shared and with separate beginnings, of the same rows."""
    make, batch_size, grouped = CELLS[cell]
    rows = make()
    lengths = np.array([len(row.ids) for row in rows])
    found = find_beginnings(rows)
    plan = plan_epoch(
        lengths,
        np.ones_like(lengths),
        batch_size=batch_size,
        seed=0,
        group_by_prefix=grouped,
        beginnings=found,
    )
    made = []
    for step in range(min(steps, plan.micro_steps)):
        chosen = plan.rows(0, step)
        examples = [rows[row] for row in chosen]
        made.append((collate(examples, neighbors=neighbors_of(found, chosen)), collate(examples)))
    return made


def print_times(cell: str, steps: int) -> None:
    """Print what the table has of a cell's times."""
    model = load_adapted(CONFIG)
    if reason := share(model):
        raise SystemExit(reason)
    made = batches(cell, steps)
    seconds: tuple[list[float], list[float]] = ([], [])
    for way in made[0]:
        summed_loss(model, way).backward()
    for number, ways in enumerate(made):
        # Which way comes first alternates.
        for way in (0, 1) if number % 2 else (1, 0):
            torch.manual_seed(number)
            start = time.perf_counter()
            summed_loss(model, ways[way]).backward()
            seconds[way].append(time.perf_counter() - start)
    rows = [sum(apart.lengths) for _, apart in made]
    saved = 1 - sum(together.input_ids.numel() for together, _ in made) / sum(rows)
    rates = [[n / s for n, s in zip(rows, times, strict=True)] for times in seconds]
    ratios = [apart / together for together, apart in zip(*seconds, strict=True)]
    print(" | ".join([f"{saved:.1%}", *(quartiles(values) for values in (*rates, ratios))]))


def quartiles(values: list[float]) -> str:
    """Return the median and the quartiles of some values."""
    low, middle, high = statistics.quantiles(values, n=4)
    digits = 2 if middle < 20 else 0
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def said_by(*arguments: str) -> str:
    """Return the last line that a process of this script prints.

    A process begins with the peak of the one that starts it, so that one stays small.
    """
    command = [sys.executable, "-m", "benchmarks.shared_beginnings", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[-1]


def print_peak(cell: str, way: str) -> None:
    """Train on the largest of a few micro-batches, and print the process's peak."""
    model = load_adapted(CONFIG)
    share(model)
    made = [pair[way == "separate"] for pair in batches(cell, 16)]
    largest = max(made, key=lambda batch: batch.input_ids.numel())
    summed_loss(model, largest).backward()
    print(peak_memory())


def main() -> None:
    """Measure the cells named on the command line, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cells", nargs="*", default=list(CELLS))
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--peak", choices=["shared", "separate"])
    parser.add_argument("--times", action="store_true")
    options = parser.parse_args()
    if options.peak or options.times:
        retain_heap()
        [cell] = options.cells
        print_peak(cell, options.peak) if options.peak else print_times(cell, options.steps)
        return
    print(f"{platform.platform()}, {torch.get_num_threads()} threads, {options.steps} steps\n")
    print(
        "| rows | tokens saved | tokens/s, shared | tokens/s, separate | times as fast "
        "| peak GB, shared | peak GB, separate |\n|---|---|---|---|---|---|---|"
    )
    for cell in options.cells:
        times = said_by("--times", "--steps", str(options.steps), cell)
        peaks = [int(said_by("--peak", way, cell)) / 1e9 for way in ("shared", "separate")]
        print(f"| {cell} | {times} | {peaks[0]:.2f} | {peaks[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
