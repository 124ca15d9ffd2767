"""Simulate what a search says of settings that are equal, and of settings that are better.

    python -m benchmarks.search_honesty [--searches 200] [--write]

No model is trained: the loss of each row is drawn, and ``decide`` sees what it would see after a
search. ``--write`` replaces the tables in docs/search.md.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lit.measures.measured import Outcome
from lit.searching.outcome.decision import Decision, decide
from lit.searching.outcome.rules import outcome
from lit.searching.records import Search, Trial

PAGE = Path(__file__).parents[1] / "docs" / "search.md"
SPREAD = 0.1
"""Standard deviation of one row's loss per label from settings to settings, in nats."""
Draw = Callable[[np.random.Generator, int], np.ndarray]
NOISE: dict[str, Draw] = {
    "normal": lambda random, rows: random.normal(size=rows),
    "t3": lambda random, rows: random.standard_t(3, rows) / np.sqrt(3),
    "lognormal": lambda random, rows: (random.lognormal(size=rows) - np.exp(0.5)) / 2.16,
}
"""Each has mean 0 and standard deviation 1."""


def made_search(
    random: np.random.Generator,
    settings: int,
    rows: int,
    noise: str = "normal",
    gain: float = 0.0,
    runs: int = 1,
    seed_spread: float = 0.0,
) -> Search:
    """Return a search with drawn losses, whose first settings are the config's own.

    Args:
        settings: How many settings were compared; all cost the same.
        rows: Choosing rows, and as many reporting rows.
        noise: A key of ``NOISE``.
        gain: How much lower the loss per label of the second settings is.
        runs: Runs of each settings, with another seed each.
        seed_spread: The standard deviation that the seed adds to the loss of all rows of a run.
    """
    labels = [random.integers(5, 80, rows) for _ in range(2)]
    hard = [random.lognormal(0.6, 0.3, rows) for _ in range(2)]
    trials = []
    for number in range(settings * runs):
        one = number // runs
        shift = seed_spread * random.normal() - 0.3 - gain * (one == 1)
        sums = [
            tuple(map(float, (loss + SPREAD * NOISE[noise](random, rows) + shift) * count))
            for loss, count in zip(hard, labels, strict=True)
        ]
        name = {"model.lr": 1e-4 * (one + 1)}
        last = sum(sums[0]) / float(labels[0].sum())
        if not np.isfinite(last):
            raise ValueError("a drawn loss is not finite")
        trials.append(
            Trial(number, name, number % runs, "finished", "", (), 100, 1000, 1.0, True, *sums)
        )
    return Search(
        trials=tuple(trials),
        own=0,
        choose_labels=tuple(map(int, labels[0])),
        report_labels=tuple(map(int, labels[1])),
        base_choose=tuple(map(float, hard[0] * labels[0])),
        base_report=tuple(map(float, hard[1] * labels[1])),
        rows=(200, rows, rows),
        budget_s=None,
        used_s=1.0,
    )


def decisions(searches: int, seed: int, **made: object) -> Iterator[Decision]:
    """Yield the decisions of many searches."""
    random = np.random.default_rng((seed, *map(ord, repr(made))))
    for _ in range(searches):
        yield decide(made_search(random, **made))  # type: ignore[arg-type]


def equal_settings(settings: int, rows: int, noise: str, searches: int, seed: int = 1) -> dict:
    """Return shares of searches of equal settings.

    The config's own settings are as good as the others, so an interval of the gain should hold
    zero. ``reported`` and ``chosen`` are the shares that do: of the interval over reporting rows,
    and of one over the choosing rows, where others than the config's own look best. ``tied`` is
    the share in which no settings are told apart, ``better`` that in which a gain is claimed.
    """
    reported, chosen, tied, better, flattery = [], [], [], [], []
    made = {"settings": settings, "rows": rows, "noise": noise}
    for found in decisions(searches, seed, **made):
        if found.facts is None:
            raise ValueError(found.sentence)
        tied.append(len(found.facts.tied) == settings)
        better.append(found.kind.startswith("better"))
        if found.facts.gain_report and found.facts.gain_choose and found.facts.flattery:
            reported.append(outcome(found.facts.gain_report) is Outcome.NOT_SHOWN)
            chosen.append(outcome(found.facts.gain_choose) is Outcome.NOT_SHOWN)
            flattery.append(found.facts.flattery.value)
    names = ("reported", "chosen", "tied", "better", "flattery")
    means = map(np.mean, (reported, chosen, tied, better, flattery))
    return dict(zip(names, map(float, means), strict=True))


def planted(settings: int, rows: int, gain: float, searches: int, seed: int = 2) -> dict:
    """Return shares of searches in which one of the settings is better.

    ``found`` is the share in which it is taken, ``called`` in which it is also called better.
    """
    made = {"settings": settings, "rows": rows, "gain": gain}
    kinds = [(found.winner == 1, found.kind) for found in decisions(searches, seed, **made)]
    called = [taken and kind.startswith("better") for taken, kind in kinds]
    return {"found": np.mean([taken for taken, _ in kinds]), "called": np.mean(called)}


def seeds(spread: float, gain: float, rows: int, runs: int, searches: int, seed: int = 3) -> dict:
    """Return how often a gain is claimed for settings whose runs differ by their seed too.

    ``once`` is the share that claims a better adapter, ``better`` better settings, ``seeds`` that
    names the seeds as a reason to doubt.
    """
    made = {"settings": 4, "rows": rows, "gain": gain, "runs": runs, "seed_spread": spread}
    kinds = [found.kind for found in decisions(searches, seed, **made)]
    names = {"once": "better once", "better": "better", "seeds": "seeds"}
    return {name: kinds.count(kind) / searches for name, kind in names.items()}


def tables(searches: int) -> str:
    """Return all shares as Markdown."""
    lines = [
        "| equal settings | rows that choose, and that report | noise | reported interval holds 0 "
        "| choosing rows' interval holds 0 | all tied | called better | mean flattery, nats |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for settings in (4, 12, 24):
        for rows, noise in ((10, "normal"), (20, "t3"), (60, "lognormal")):
            x = equal_settings(settings, rows, noise, searches)
            lines.append(
                f"| {settings} | {rows} | {noise} | {x['reported']:.1%} | {x['chosen']:.1%} | "
                f"{x['tied']:.1%} | {x['better']:.1%} | {x['flattery']:.3f} |"
            )
    lines += [
        "",
        "| settings, one of them better | rows | better by, nats | taken | called better |",
        "|---|---|---|---|---|",
    ]
    for settings, rows in ((4, 20), (12, 20), (12, 60)):
        for gain in (0.02, 0.05, 0.1):
            x = planted(settings, rows, gain, searches)
            lines.append(f"| {settings} | {rows} | {gain} | {x['found']:.1%} | {x['called']:.1%} |")
    lines += [
        "",
        "| spread of seeds, nats | better by, nats | rows | runs of each | the adapter is called "
        "better | the settings are called better | seeds are named |",
        "|---|---|---|---|---|---|---|",
    ]
    for spread, gain in ((0.0, 0.0), (0.01, 0.0), (0.03, 0.0), (0.01, 0.1), (0.03, 0.1)):
        for rows, runs in ((60, 1), (60, 2)):
            x = seeds(spread, gain, rows, runs, searches)
            lines.append(
                f"| {spread} | {gain} | {rows} | {runs} | {x['once']:.1%} | {x['better']:.1%} | "
                f"{x['seeds']:.1%} |"
            )
    return "\n".join(lines)


def main(args: list[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--searches", type=int, default=200, help="for each row of the tables")
    parser.add_argument("--write", action="store_true", help="replace the tables in docs/search.md")
    options = parser.parse_args(args)
    start = time.perf_counter()
    text = tables(options.searches)
    print(text)
    print(f"{time.perf_counter() - start:.0f} s")
    if options.write:
        page = PAGE.read_text("utf-8")
        marks = r"(<!-- honesty -->\n).*?(<!-- end -->)"
        PAGE.write_text(re.sub(marks, lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.S), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
