"""Searches made of numbers: losses of rows that are drawn, not trained."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lit.searching.records import Point, Search, Trial

OWN = {
    "model.lr": 2e-4,
    "model.lora.r": 8,
    "model.lora.lora_alpha": 16,
    "model.lora.target_modules": "all-linear",
}
PARAMETERS = {"attention": 57_600, "all-linear": 305_280}


@dataclass(frozen=True)
class Run:
    """What a made trial has.

    Args:
        gain: Its true loss per label below that of the config's own settings.
        report_gain: The same on the reporting rows, if it is another there.
    """

    gain: float = 0.0
    report_gain: float | None = None
    lr: float = 2e-4
    r: int = 8
    modules: str = "all-linear"
    steps: int = 100
    seed: int = 1
    full: bool = True
    state: str = "finished"
    reported: bool = True


def make(
    runs: Sequence[Run], rows: tuple[int, int] = (40, 40), noise: float = 0.03, seed: int = 0
) -> Search:
    """Return a search whose first run has the config's own settings."""
    random = np.random.default_rng(seed)
    labels = [random.integers(5, 80, n) for n in rows]
    base = [random.lognormal(0.6, 0.3, n) for n in rows]
    trials = []
    for number, run in enumerate(runs):
        gains = (run.gain, run.gain if run.report_gain is None else run.report_gain)
        drawn = [
            (row + noise * random.standard_t(5, len(row)) - 0.3 - gain) * count
            for row, gain, count in zip(base, gains, labels, strict=True)
        ]
        sums = [tuple(map(float, part)) for part in drawn]
        best = sum(sums[0]) / max(1, int(labels[0].sum()))
        failed = run.state == "failed"
        trials.append(
            Trial(
                number=number,
                settings=settings(run),
                seed=run.seed,
                state=run.state,  # type: ignore[arg-type]
                reason={
                    "failed": "the loss is not finite at step 12",
                    "stopped early": "behind",
                }.get(run.state, ""),
                curve=() if failed else curve(run, best),
                steps=run.steps,
                parameters=PARAMETERS[run.modules] * run.r,
                seconds=0.6 * run.steps,
                full_schedule=run.full,
                choose=None if failed else sums[0],
                report=sums[1] if run.reported and not failed else None,
            )
        )
    return Search(
        trials=tuple(trials),
        own=0,
        choose_labels=tuple(map(int, labels[0])),
        report_labels=tuple(map(int, labels[1])),
        base_choose=tuple(map(float, base[0] * labels[0])),
        base_report=tuple(map(float, base[1] * labels[1])),
        rows=(200, *rows),
        budget_s=1800.0,
        used_s=1712.0,
    )


def settings(run: Run) -> dict[str, Any]:
    named = {"model.lr": run.lr, "model.lora.r": run.r, "model.lora.lora_alpha": 2 * run.r}
    return OWN | named | {"model.lora.target_modules": run.modules}


def curve(run: Run, best: float) -> tuple[Point, ...]:
    """Return validations that end near the best loss."""
    share = np.linspace(0.1, 1, 10)
    shape = 0.35 * np.exp(-6 * share) + 0.01 * np.maximum(0, share - 0.8)
    shape += best - shape.min()
    if run.state == "stopped early":
        share, shape = share[:3], shape[:3]
    steps = [max(1, round(run.steps * float(x))) for x in share]
    return tuple(Point(s, s / 50, float(x)) for s, x in zip(steps, shape, strict=True))


def realistic(trials: int = 24, seed: int = 3) -> Search:
    """Return a search like that of an afternoon: screened trials, two failures, finals twice."""
    random = np.random.default_rng(seed)
    runs = [Run(full=False)]
    for _ in range(trials - 1):
        lr = float(10 ** random.uniform(-4.7, -2.7))
        r, modules = int(random.choice([4, 8, 16, 32])), random.choice(["attention", "all-linear"])
        gain = 0.06 - 0.08 * (math.log10(lr) + 3.3) ** 2 + 0.004 * math.log2(r / 8)
        gain += 0.015 if modules == "all-linear" else 0.0
        state = "finished" if gain > 0.0 else "stopped early"
        if lr > 1e-3:
            state = "failed"
        runs.append(
            Run(gain, lr=lr, r=r, modules=str(modules), full=False, state=state, reported=False)
        )
    ended = [run for run in runs[1:] if run.state == "finished"]
    finals = [runs[0], *sorted(ended, key=lambda run: -run.gain)[:3]]
    runs += [
        replace(run, full=True, reported=True, seed=seed, gain=run.gain + 0.03 + 0.002 * seed)
        for run in finals
        for seed in (1, 2)
    ]
    made = make(runs, (60, 60), seed=seed)
    return replace(made, notes=("24 GB of memory are enough for each trial.",))
