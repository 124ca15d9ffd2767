"""Run whole searches of a tiny model on tasks whose best settings are known.

    python -m benchmarks.searching [--seeds 10] [--searches 20] [--write]
    python -m benchmarks.searching --corpus SEARCH

The first form trains every setting of a small grid with several seeds, and then lets searches, each
on rows of its own, look for the best of the grid; and it runs searches of settings that are equal
by construction. ``--write`` replaces the tables in docs/search.md. The second form trains the
winner of a finished search again with two other learning rates, and compares them with it on the
reporting rows.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from benchmarks.searching_world import Bench, train
from lit.measures.differences import difference
from lit.run.console import quiet
from lit.searching.outcome.texts import difference_text, settings_text
from lit.searching.records import Search
from lit.searching.results import BEST
from lit.searching.space import ALPHA, LR, R
from lit.searching.workbench import Workbench
from lit.settings.arguments import parse

PAGE = Path(__file__).parents[1] / "docs" / "search.md"
DROPOUT = "model.lora.lora_dropout"
GRID: dict[str, list] = {LR: [3e-3, 3e-2, 9e-1], R: [1, 2, 8]}
BEST_OF_GRID = {LR: 3e-2, R: 8}
GRID_SEEDS = 3
LEAST_FOUND, LEAST_TIED, MOST_CALLED_BETTER = 0.8, 0.8, 0.1
GRID_TRIALS, EQUAL_TRIALS = 9, 6
EQUAL = {DROPOUT: {"low": 0.19, "high": 0.21}}
"""Other numbers are dropped, and as good as as many of them."""


def grid(shared: Bench) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Yield each setting of the grid with the losses of the reporting rows by seed."""
    own = {LR: GRID[LR][0], R: 1, ALPHA: 2}
    benches = [shared.bench("grid", seed, own) for seed in range(GRID_SEEDS)]
    for lr in GRID[LR]:
        for r in GRID[R]:
            settings, losses = {LR: lr, R: r, ALPHA: 2 * r}, []
            for bench in benches:
                bench.base = shared.loaded
                trial = train(bench, settings)
                shared.loaded = bench.base
                sums, labels = trial.report or (np.inf,), sum(bench.labels()[1])
                losses.append(float(np.sum(sums) / labels))
            yield {LR: lr, R: r}, losses


def planted(bench: Bench, seeds: int) -> tuple[str, bool]:
    """Return the table of the grid and how often searches took its best, and if often enough."""
    lines = [
        "| lr | r | loss on the reporting rows, by seed | taken by searches |",
        "|---|---|---|---|",
    ]
    known = dict[str, list[float]]()
    for settings, losses in grid(bench):
        known[settings_text(settings)] = losses
        print(f"grid    {settings_text(settings):20} {losses}", flush=True)
    own = {LR: GRID[LR][0], R: 2, ALPHA: 4}
    taken = Counter[str]()
    for seed in range(100, 100 + seeds):
        found = bench.search("planted", seed, own, GRID, GRID_TRIALS)
        settings = {name: found.taken.settings[name] for name in (LR, R)}
        taken[settings_text(settings)] += 1
        print(f"planted {seed}: {settings_text(settings)}; {found.decision.kind}", flush=True)
    for name, losses in known.items():
        lr, r = (part.split()[1] for part in name.split(", "))
        shown = ", ".join(f"{loss:.3f}" for loss in losses)
        lines.append(f"| {lr} | {r} | {shown} | {taken[name]} of {seeds} |")
    return "\n".join(lines), taken[settings_text(BEST_OF_GRID)] >= LEAST_FOUND * seeds


def equal(bench: Bench, searches: int) -> tuple[str, bool]:
    """Return a table of searches of equal settings, and whether they are tied and honest."""
    own = {LR: BEST_OF_GRID[LR], R: BEST_OF_GRID[R], ALPHA: 16, DROPOUT: 0.2}
    kinds = Counter[str]()
    all_tied = 0
    for seed in range(200, 200 + searches):
        found = bench.search("equal", seed, own, EQUAL, EQUAL_TRIALS)
        facts = found.decision.facts
        assert facts is not None
        kinds[found.decision.kind] += 1
        all_tied += len(facts.tied) == len(facts.compared)
        gains = [difference_text(x) for x in (facts.gain_report, facts.gain_choose)]
        tied = f"{len(facts.tied)} of {len(facts.compared)} tied"
        spread = facts.seed_spread and f"{facts.seed_spread:.4f}"
        print(f"equal   {seed}: {found.decision.kind}; {tied}; {gains}; seeds {spread}", flush=True)
    counts = [all_tied, kinds["better"], kinds["better once"], kinds["seeds"], kinds["worse"]]
    lines = [
        "| searches of equal settings | all tied | settings called better | an adapter called "
        "better, seeds not known | an adapter called better, seeds can do as much | the config's "
        "own kept because others are worse |",
        "|---|---|---|---|---|---|",
        f"| {searches} | {' | '.join(map(str, counts))} |",
    ]
    honest = kinds["better"] <= MOST_CALLED_BETTER * searches
    return "\n".join(lines), all_tied >= LEAST_TIED * searches and honest


def corpus(folder: Path, rates: tuple[float, ...] = (1e-5, 5e-2)) -> str:
    """Return how the winner of a search compares with runs that differ in the learning rate.

    Args:
        folder: The search's folder, with its trials in it.
        rates: The other learning rates.
    """
    found = json.loads((folder / "report.json").read_text("utf-8"))
    winner = Search.from_json(found["search"]).trial(found["decision"]["winner"])
    if winner is None or winner.report is None:
        raise SystemExit(f"{folder} has no winner whose reporting rows were measured")
    bench = Workbench(parse(["--config", str(folder / BEST)]))
    labels, best = np.array(bench.labels()[1], float), np.array(winner.report)
    lines = [
        "| lr | loss, reporting rows | the winner minus this (95% interval) |",
        "|---|---|---|",
    ]
    name = f"{winner.settings[LR]:g} (the winner)"
    lines.append(f"| {name} | {best.sum() / labels.sum():.4f} | – |")
    for lr in rates:
        trial = train(bench, {LR: lr})
        if trial.report is None:
            lines.append(f"| {lr:g} | {trial.state}: {trial.reason} | – |")
            continue
        sums = np.array(trial.report)
        text = difference_text(difference(best, sums, labels))
        lines.append(f"| {lr:g} | {sums.sum() / labels.sum():.4f} | {text} |")
    return "\n".join(lines)


def main(args: list[str] | None = None) -> int:
    """Run the script; the exit code is 1 if searches are right less often than they must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="searches for the best of the grid")
    parser.add_argument("--searches", type=int, default=20, help="searches of equal settings")
    parser.add_argument("--write", action="store_true", help="replace the tables in docs/search.md")
    parser.add_argument("--corpus", type=Path, help="the folder of a finished search")
    options = parser.parse_args(args)
    quiet()
    if options.corpus:
        print(corpus(options.corpus))
        return 0
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder) / "cache"
        bench = Bench(Path(folder))
        parts = [planted(bench, options.seeds), equal(bench, options.searches)]
    text = "\n\n".join(table for table, _ in parts)
    print(f"{text}\n{time.process_time() - start:.0f} s of processor time")
    if options.write:
        page = PAGE.read_text("utf-8")
        marks = r"(<!-- trained -->\n).*?(<!-- end trained -->)"
        PAGE.write_text(re.sub(marks, lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.S), "utf-8")
    return int(not all(right for _, right in parts))


if __name__ == "__main__":
    sys.exit(main())
