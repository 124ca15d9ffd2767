"""A table of words with a change of known rank, and a base model that knows the table before it.

A question has a word, between two that mean nothing; an answer is a word that is drawn with the
probabilities of the question's row of the table. In the base's table they are a softmax of
scores. In the table that is to be learned the scores have a matrix of rank ``RANK`` added, so an
update of that rank of one layer can learn it, and an update of a lower rank cannot.
"""

import contextlib
import io
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from benchmarks.tiny_base import make_tokenizer, train_base
from lit.searching.outcome.decision import Decision, decide
from lit.searching.planner import Planner
from lit.searching.records import Search, Trial
from lit.searching.setup import assemble, choose_space, prepare
from lit.searching.trials.ledger import Job, Ledger
from lit.searching.trials.storage import open_storage
from lit.searching.trials.watch import Signals, Watch
from lit.searching.workbench import Workbench
from lit.settings.arguments import parse

RANK = 8
QUESTIONS, ANSWERS, NOISE = 40, 16, 60
"""Words that are asked about, that answer, and that mean nothing."""
KNOWN, CHANGE = 4.0, 3.0
"""The standard deviation of the base's scores, and of what is added to them."""
ROWS, HELD_OUT = 1200, 0.5
"""Rows of a search; of those held out one half chooses and one half reports."""
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


class World(NamedTuple):
    """The words, and the scores of the answers, (questions, answers)."""

    words: tuple[str, ...]
    known: np.ndarray
    """What the base knows."""
    wanted: np.ndarray
    """What is to be learned."""

    @classmethod
    def made(cls, seed: int) -> "World":
        """Return the world of a seed."""
        draw = np.random.default_rng(seed)
        names = [a + b for a in SYLLABLES for b in SYLLABLES]
        words = tuple(map(str, draw.choice(names, QUESTIONS + ANSWERS + NOISE, replace=False)))
        known = KNOWN * draw.normal(size=(QUESTIONS, ANSWERS))
        change = draw.normal(size=(QUESTIONS, RANK)) @ draw.normal(size=(RANK, ANSWERS))
        return cls(words, known, known + CHANGE * change / np.sqrt(RANK))

    def rows(self, scores: np.ndarray, count: int, draw: np.random.Generator) -> list[dict]:
        """Return rows that are drawn from a table, no two with the same question."""
        chances = np.exp(scores - scores.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        rows: dict[str, dict] = {}
        while len(rows) < count:
            asked = int(draw.integers(QUESTIONS))
            answer = self.words[QUESTIONS + draw.choice(ANSWERS, p=chances[asked])]
            around = draw.choice(self.words[QUESTIONS + ANSWERS :], 2)
            prompt = f"{around[0]} {self.words[asked]} {around[1]}"
            rows[prompt] = {"prompt": prompt, "response": answer}
        return list(rows.values())


def make_base(world: World, folder: Path) -> None:
    """Train a base model on the table that it knows, and save it with its tokenizer."""
    numbers = np.random.default_rng(0)

    def draw() -> tuple[str, str]:
        (row,) = world.rows(world.known, 1, numbers)
        return row["prompt"], row["response"]

    texts = [f"{word} {word}" for word in world.words] * 2 + ["user assistant"] * 4
    # The answer, its end token and a newline: the words that mean nothing are not learned.
    train_base(make_tokenizer(texts, 2000), draw, folder, seed=0, taught=3)


def write_rows(rows: list[dict], path: Path) -> Path:
    """Write rows as JSONL, and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


class Found(NamedTuple):
    """A finished search, and what was decided."""

    search: Search
    decision: Decision

    @property
    def taken(self) -> Trial:
        """The trial that was taken."""
        trial = self.search.trial(self.decision.winner or 0)
        assert trial is not None
        return trial


class Bench:
    """A base model that all searches share.

    Args:
        folder: For all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.world, self.base = folder, World.made(0), folder / "base"
        make_base(self.world, self.base)
        self.loaded: Any = None

    def bench(self, name: str, seed: int, own: dict[str, Any]) -> Workbench:
        """Return a workbench with rows of its own."""
        draw = np.random.default_rng((seed, *map(ord, name)))
        rows = self.world.rows(self.world.wanted, ROWS, draw)
        path = write_rows(rows, self.folder / f"{name}-{seed}.jsonl")
        settings = {
            "model.base": self.base,
            "data.path": path,
            "data.val_fraction": HELD_OUT,
            "data.batch_size": 10,
            # The last layer before the head: its update has the rank of what is added to scores.
            "model.lora.target_modules": "[down_proj]",
            "model.lora.layers_to_transform": "[1]",
            "trainer.max_epochs": 1,
            "trainer.accelerator": "cpu",
            "seed_everything": seed,
            **own,
        }
        arguments = parse(
            [x for name, value in settings.items() for x in (f"--{name}", str(value))]
        )
        prepare(arguments)
        bench = Workbench(arguments)
        bench.base = self.loaded
        return bench

    def search(
        self, name: str, seed: int, own: dict[str, Any], space: dict[str, Any], trials: int
    ) -> Found:
        """Run a search, as lit.search does."""
        folder = self.folder / f"{name}-{seed}"
        folder.mkdir()
        path = folder / "space.yaml"
        path.write_text(yaml.safe_dump(space), "utf-8")
        with contextlib.redirect_stdout(io.StringIO()):
            bench = self.bench(name, seed, own)
            planner = Planner(choose_space(path, bench.arguments), seed)
            ledger = Ledger(open_storage(None, folder), name, str(folder))
            started = time.monotonic()
            searching = assemble(bench, ledger, folder, planner, trials, None, started)
            searching.measure()
            search = searching.run()
        self.loaded = bench.base
        if search is None:
            raise RuntimeError(f"{name}, seed {seed}: the config's own settings have no result")
        return Found(search, decide(search))


def train(bench: Workbench, settings: dict[str, Any]) -> Trial:
    """Train the config with some settings changed, the whole schedule, and measure it."""
    job = Job("final", settings, int(bench.arguments.config.seed_everything))
    with Signals() as signals:
        return bench.train(0, job, Watch(signals))
