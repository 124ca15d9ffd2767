"""The workloads: files of rows, and which of them our own plan puts into each optimizer step.

Ours trains on the file by its usual way; the others are handed the rows of each step.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.peers import rows
from benchmarks.peers.rows import Step
from data.plan import plan
from data.store import Store, build
from lit.model.base import load_tokenizer

MODEL = "models/SmolLM2-135M-Instruct"
CORPORA = Path("data/corpora")
ENGLISH = CORPORA / "printing3d.en.jsonl"
MAX_LENGTH = 512
SEED = 42
Settings = dict[str, int]
MODES: dict[str, Settings] = {
    "batch 4": {"batch_size": 4},
    "budget 1024": {"batch_size": 64, "max_tokens": 1024},
}
ENOUGH = 32
"""Composed rows for each step, of which the budget takes as many as it has room for."""
Shape = Callable[[random.Random], tuple[int, int]]


@dataclass(frozen=True)
class Workload:
    """Rows of one kind.

    Args:
        title: What they are.
        files: Corpora that they are taken from.
        shape: Draws about how many tokens the prompt and the answer of a row have, which are then
            made of the corpus's words; None to take the corpus's own rows.
    """

    title: str
    files: tuple[Path, ...] = (ENGLISH,)
    shape: Shape | None = None


WORKLOADS = {
    "a": Workload("the quickstart's corpus"),
    "b": Workload(
        "short rows of very different lengths",
        shape=lambda draw: (draw.randint(5, 20), round(2 ** draw.uniform(1, 8))),
    ),
    "c": Workload("rows near 512 tokens", shape=lambda draw: (30, draw.randint(410, 440))),
    "d": Workload(
        "prompts ten times longer than answers", shape=lambda draw: (draw.randint(200, 300), 25)
    ),
    "e": Workload(
        "the Russian corpora",
        tuple(
            CORPORA / name
            for name in ("printing3d.ru.jsonl", "electronics.ru.csv", "video_editing.ru.jsonl")
        ),
    ),
}


CELLS = tuple((key, mode) for key in WORKLOADS for mode in MODES)


def prepare(key: str, settings: Settings, steps: int, folder: Path, skip: int = 0) -> Path:
    """Write a workload's rows, and the steps that the plan makes of them.

    Args:
        key: Which of ``WORKLOADS``.
        settings: ``batch_size``, and perhaps ``max_tokens``.
        steps: Optimizer steps.
        folder: Where to write.
        skip: Rows that another file has.

    Returns:
        A file of ``benchmarks.peers.rows``: steps, the data file, and settings of ``data.``.
    """
    workload = WORKLOADS[key]
    tokenizer = load_tokenizer(MODEL, None)
    name = "_".join([key, *map(str, settings.values()), str(skip)])
    source: list[Path] = list(workload.files)
    if workload.shape:
        source = [folder / f"{name}.source.jsonl"]

        @cache
        def count(word: str) -> int:
            return len(tokenizer(f" {word}", add_special_tokens=False)["input_ids"])

        _compose(source[0], workload, count, ENOUGH * (steps + 1) + skip)
    stores = [build(path, tokenizer, max_length=MAX_LENGTH) for path in source]
    everything = [(store, row) for store in stores for row in range(len(store))]
    random.Random(SEED).shuffle(everything)
    everything = everything[skip:]
    lengths = np.array([store.lengths[row] for store, row in everything])
    targets = np.array([store.targets[row] for store, row in everything])
    taken = enough(lengths, targets, settings, steps)
    data = folder / f"{name}.jsonl"
    _write(data, everything[:taken])
    planned = steps_of(build(data, tokenizer, max_length=MAX_LENGTH), settings)[:steps]
    path = folder / f"{name}.json"
    rows.write(path, planned, data=str(data), settings=settings, model=MODEL)
    return path


def enough(lengths: np.ndarray, targets: np.ndarray, settings: Settings, steps: int) -> int:
    """The fewest rows of which the plan makes that many steps, all of them full.

    No rows beside these: ours may try the longest micro-batch of a run after its first step.
    """
    if "max_tokens" not in settings and len(lengths) >= steps * settings["batch_size"]:
        return steps * settings["batch_size"]
    for taken in range(steps, len(lengths) + 1):
        # One step more is begun as soon as these are full.
        if plan(lengths[:taken], targets[:taken], seed=SEED, **settings).steps > steps:
            return taken
    raise ValueError(f"{len(lengths)} rows are too few for {steps} steps: ask for fewer")


def steps_of(store: Store, settings: Settings) -> list[Step]:
    """The steps of the first epoch of our own plan."""
    planned = plan(store.lengths, store.targets, seed=SEED, **settings)
    examples = (
        [store.example(row) for row in planned.rows(0, turn)] for turn in range(planned.micro_steps)
    )
    return [Step([x.ids for x in step], [x.labels for x in step]) for step in examples]


def _write(path: Path, chosen: list[tuple[Store, int]]) -> None:
    lines = (
        json.dumps({"messages": [message._asdict() for message in store.messages(row)]})
        for store, row in chosen
    )
    path.write_text("\n".join(lines) + "\n")


def _compose(path: Path, workload: Workload, count: Callable[[str], int], number: int) -> None:
    """Rows of the wanted shape, made of the corpus's words in their order."""
    assert workload.shape
    draw = random.Random(SEED)
    words = _words(workload.files[0])
    with path.open("w") as file:
        for _ in range(number):
            prompt, answer = (_take(words, length, count) for length in workload.shape(draw))
            file.write(json.dumps({"prompt": prompt, "response": answer}) + "\n")


def _words(path: Path) -> Iterator[str]:
    texts = [json.loads(line)["response"] for line in path.read_text().splitlines()]
    words = re.findall(r"\S+", " ".join(texts))
    while True:
        yield from words


def _take(words: Iterator[str], tokens: int, count: Callable[[str], int]) -> str:
    """Words of about so many tokens."""
    taken: list[str] = []
    while tokens > 0:
        taken.append(next(words))
        tokens -= count(taken[-1])
    return " ".join(taken)
