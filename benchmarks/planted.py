"""Plant what an adapter learned, and see whether the verdict of lit.compare says so.

    python -m benchmarks.planted [--seeds 10] [--write]

In a small world every thing has a color. A base model knows the colors of half of the things, and
several ways to say them. For each seed, adapters are trained on it by lit.fit and measured by
lit.compare, in every case on the same held-out rows. ``--write`` replaces the table in
docs/verdict.md.
"""

import argparse
import contextlib
import io
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets

from benchmarks.planted_world import Split, World, held_rows, make_base, rows_about
from lit.compare import main as compare
from lit.fit import main as fit
from lit.measures.matching import SIMILAR, WRONG
from lit.measures.measured import Group

PAGE = Path(__file__).parents[1] / "docs" / "verdict.md"
WORLDS = 2
"""Worlds with a base model each, which the seeds share."""
MOST_WRONG = 1
"""Of ten seeds, those that may get a verdict that is not true of the adapter."""


def _shuffled(world: World, split: Split, chance: random.Random) -> list[dict]:
    colors = [world.colors[thing] for thing in split.others]
    return rows_about(world, split.others, chance.sample(colors, len(colors)))


def _of_others(world: World, split: Split, chance: random.Random) -> list[dict]:
    return rows_about(world, split.others)


def _of_held(world: World, split: Split, chance: random.Random) -> list[dict]:
    return rows_about(world, split.held)


class Case(NamedTuple):
    """What an adapter is trained on, and the kinds of verdict that are true of it."""

    rows: Callable[[World, Split, random.Random], list[dict]]
    settings: tuple[str, ...]
    kinds: tuple[str, ...]


STYLE = ("--model.lr", "3e-3", "--trainer.max_epochs", "2")
CASES = {
    "style: answers shuffled among questions": Case(_shuffled, STYLE, ("manner",)),
    "style: right answers to other questions": Case(_of_others, STYLE, ("manner",)),
    "the held-out rows themselves": Case(
        _of_held, ("--model.lr", "1e-2", "--trainer.max_epochs", "40"), ("truth",)
    ),
    "nothing: a learning rate near zero": Case(
        _of_others, ("--model.lr", "1e-6", "--trainer.max_epochs", "1"), ("not shown",)
    ),
}


def report_of(case: Case, world: World, seed: int, base: Path, folder: Path) -> dict:
    """Train an adapter, and return the report.json of its comparison.

    Raises:
        RuntimeError: A command fails.
    """
    chance, split = random.Random(seed), Split.made(world, seed)
    folder.mkdir()
    held = held_rows(world, split, chance)
    files = {"held.jsonl": held, "train.jsonl": case.rows(world, split, chance)}
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    train = [
        *("--model.base", str(base), "--data.path", str(folder / "train.jsonl")),
        *("--data.val_path", str(folder / "held.jsonl"), "--data.on_duplicate", "keep"),
        *("--output_dir", str(folder / "run"), "--seed_everything", str(seed)),
        *("--data.batch_size", "8", "--trainer.accelerator", "cpu", *case.settings),
        *("--data.val_every_n_steps", "1000"),
    ]
    measure = ["--adapter", str(folder / "run" / "adapter"), "--max_new_tokens", "16"]
    with _quiet(folder / "output.txt"):
        codes = [fit(train), compare(measure)]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}: {(folder / 'output.txt').read_text('utf-8')}")
    return json.loads((folder / "run" / "comparison" / "report.json").read_text("utf-8"))


@contextlib.contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Write what is printed to a file."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            yield
    finally:
        path.write_text(text.getvalue(), "utf-8")


def _figures(report: dict) -> str:
    """Return the kind of the verdict and what it stands on, in a line."""
    loss = report["loss"]
    parts = [f"loss {loss['base']:.3f} → {loss['tuned']:.3f}"]
    parts += [
        f"{x['name']} {x['base']:.0%} → {x['tuned']:.0%}"
        for x in report["measures"]
        if x["group"] in (Group.MATCHING, Group.TRUTH)
    ]
    return f"{report['verdict']['kind']:9} ({', '.join(parts)})"


def table(found: dict[str, list[dict]]) -> str:
    """Return the verdicts by case as Markdown."""
    lines = ["| trained on | verdict | seeds | matching, similar questions | truth |"]
    lines.append("|---|---|---|---|---|")
    for name, reports in found.items():
        kinds = Counter(report["verdict"]["kind"] for report in reports)
        said = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        right = sum(kinds[kind] for kind in CASES[name].kinds)
        means = [_means(reports, measure) for measure in (SIMILAR, WRONG)]
        lines.append(f"| {name} | {said} | {right} of {len(reports)} | {' | '.join(means)} |")
    return "\n".join(lines)


def _means(reports: list[dict], name: str) -> str:
    values = [(x["base"], x["tuned"]) for r in reports for x in r["measures"] if x["name"] == name]
    base, tuned = (sum(side) / len(values) for side in zip(*values, strict=True))
    return f"{base:.0%} → {tuned:.0%}"


def main(args: list[str] | None = None) -> int:
    """Run the script; the exit code is 1 if a verdict is false of more seeds than may be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="replace the table in docs/verdict.md")
    options = parser.parse_args(args)
    start = time.process_time()
    found: dict[str, list[dict]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        datasets.config.HF_DATASETS_CACHE = top / "cache"
        worlds = [World.made(number) for number in range(min(WORLDS, options.seeds))]
        for number, world in enumerate(worlds):
            make_base(world, number, top / f"base{number}")
        for seed in range(options.seeds):
            number = seed % len(worlds)
            for place, (name, case) in enumerate(CASES.items()):
                new = top / f"{seed}-{place}"
                found[name].append(
                    report_of(case, worlds[number], seed, top / f"base{number}", new)
                )
                print(f"seed {seed}  {name:40}  {_figures(found[name][-1])}", flush=True)
    text = table(found)
    print(f"{text}\n{time.process_time() - start:.0f} s of processor time")
    if options.write:
        page = PAGE.read_text("utf-8")
        marks = r"(<!-- planted -->\n).*?(<!-- end planted -->)"
        PAGE.write_text(re.sub(marks, lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.S), "utf-8")
    wrong = [
        sum(report["verdict"]["kind"] not in CASES[name].kinds for report in reports)
        for name, reports in found.items()
    ]
    return int(max(wrong) * 10 > MOST_WRONG * options.seeds)


if __name__ == "__main__":
    sys.exit(main())
