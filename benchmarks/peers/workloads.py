"""The workloads: files of rows, and the rows that our plan puts into each optimizer step.

lit.fit trains on the file as usual; the other contenders get the rows of each step.
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
from data.beginnings.beginnings import Beginnings
from data.beginnings.find import find_beginnings
from data.planning.plan import plan_epoch
from data.store import Store, build_store
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
ROWS_PER_STEP = 32
"""Composed rows for each step; the budget takes as many as fit."""
Shape = Callable[[random.Random], tuple[int, int]]


@dataclass(frozen=True)
class Workload:
    """Rows of one kind.

    Args:
        title: Its name in the tables.
        files: The corpora.
        shape: Draws the tokens, roughly, of a row's prompt and answer, which are then composed of
            the corpus's words; None takes the corpus's own rows.
        beginning: The tokens, roughly, with which prompts begin alike.
        group: How many rows begin alike; 0 for all.
    """

    title: str
    files: tuple[Path, ...] = (ENGLISH,)
    shape: Shape | None = None
    beginning: int = 0
    group: int = 0

    def settings(self, mode: str) -> Settings:
        """Return the settings of a mode, with what these rows need."""
        return MODES[mode] | ({"group_by_prefix": True} if self.group else {})


WORKLOADS = {
    "a": Workload("the quickstart's corpus"),
    "b": Workload(
        "short rows of very different lengths",
        shape=lambda rng: (rng.randint(5, 20), round(2 ** rng.uniform(1, 8))),
    ),
    "c": Workload("rows near 512 tokens", shape=lambda rng: (30, rng.randint(410, 440))),
    "d": Workload(
        "prompts ten times longer than answers", shape=lambda rng: (rng.randint(200, 300), 25)
    ),
    "e": Workload(
        "the Russian corpora",
        tuple(
            CORPORA / name
            for name in ("printing3d.ru.jsonl", "electronics.ru.csv", "video_editing.ru.jsonl")
        ),
    ),
    "f": Workload(
        "a beginning of 300 tokens, short rows",
        shape=lambda rng: (rng.randint(10, 25), rng.randint(25, 45)),
        beginning=300,
    ),
    "g": Workload(
        "documents with ten questions each",
        shape=lambda rng: (rng.randint(10, 25), rng.randint(10, 25)),
        beginning=400,
        group=10,
    ),
}


CELLS = tuple((key, mode) for key in WORKLOADS for mode in MODES)


def prepare(key: str, settings: Settings, steps: int, folder: Path, skip: int = 0) -> Path:
    """Write a workload's rows, and the steps that the plan makes of them.

    Args:
        key: A key of WORKLOADS.
        settings: ``batch_size`` and optionally ``max_tokens``, as under ``data.``.
        steps: Optimizer steps.
        folder: Where to write.
        skip: How many rows to leave out at the beginning.

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

        _compose(source[0], workload, count, ROWS_PER_STEP * (steps + 1) + skip)
    stores = [build_store(path, tokenizer, max_length=MAX_LENGTH) for path in source]
    candidates = [(store, row) for store in stores for row in range(len(store))]
    if not workload.group:
        random.Random(SEED).shuffle(candidates)
    candidates = candidates[skip:]
    lengths = np.array([store.lengths[row] for store, row in candidates])
    targets = np.array([store.label_counts[row] for store, row in candidates])
    found = find_beginnings(store.example(row) for store, row in candidates)
    taken = rows_needed(lengths, targets, settings, steps, found)
    data = folder / f"{name}.jsonl"
    _write(data, candidates[:taken])
    planned = steps_of(build_store(data, tokenizer, max_length=MAX_LENGTH), settings)[:steps]
    path = folder / f"{name}.json"
    rows.write(path, planned, data=str(data), settings=settings, model=MODEL)
    return path


def rows_needed(
    lengths: np.ndarray,
    targets: np.ndarray,
    settings: Settings,
    steps: int,
    found: Beginnings | None = None,
) -> int:
    """Return the fewest rows of which the plan makes that many steps, all of them full.

    More rows would be unfair to ours: lit.fit may try a run's longest micro-batch after its first
    step.

    Raises:
        ValueError: There are too few rows.
    """
    if "max_tokens" not in settings and len(lengths) >= steps * settings["batch_size"]:
        return steps * settings["batch_size"]
    for taken in range(steps, len(lengths) + 1):
        shared = found and found.of(np.arange(taken))
        planned = plan_epoch(
            lengths[:taken], targets[:taken], seed=SEED, beginnings=shared, **settings
        )
        # The plan begins a further step once these are full.
        if planned.steps > steps:
            return taken
    raise ValueError(f"{len(lengths)} rows are too few for {steps} steps: ask for fewer")


def steps_of(store: Store, settings: Settings) -> list[Step]:
    """Return the steps of the first epoch of our plan."""
    planned = plan_epoch(
        store.lengths, store.label_counts, seed=SEED, beginnings=store.beginnings, **settings
    )
    examples = (
        [store.example(row) for row in planned.rows(0, micro_step)]
        for micro_step in range(planned.micro_steps)
    )
    return [Step([x.ids for x in step], [x.labels for x in step]) for step in examples]


def _write(path: Path, selected: list[tuple[Store, int]]) -> None:
    lines = (
        json.dumps({"messages": [message._asdict() for message in store.messages(row)]})
        for store, row in selected
    )
    path.write_text("\n".join(lines) + "\n")


def _compose(path: Path, workload: Workload, count: Callable[[str], int], number: int) -> None:
    """Write rows of the workload's shape, composed of the corpus's words in their order."""
    assert workload.shape
    rng = random.Random(SEED)
    words = _words(workload.files[0])
    with path.open("w") as file:
        beginning = ""
        for row in range(number):
            if workload.beginning and row % (workload.group or number) == 0:
                beginning = _take(words, workload.beginning, count) + " "
            prompt, answer = (_take(words, length, count) for length in workload.shape(rng))
            prompt = beginning + prompt
            file.write(json.dumps({"prompt": prompt, "response": answer}) + "\n")


def _words(path: Path) -> Iterator[str]:
    texts = [json.loads(line)["response"] for line in path.read_text().splitlines()]
    words = re.findall(r"\S+", " ".join(texts))
    while True:
        yield from words


def _take(words: Iterator[str], tokens: int, count: Callable[[str], int]) -> str:
    """Take words of about that many tokens."""
    taken: list[str] = []
    while tokens > 0:
        taken.append(next(words))
        tokens -= count(taken[-1])
    return " ".join(taken)
