"""A picture of all searched settings at once: one line for each trial's settings."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lit.messages import tr
from lit.report.pictures import save_picture
from lit.searching.outcome.decision import Decision
from lit.searching.outcome.texts import short_name, value_text
from lit.searching.records import Search, Trial

LOGARITHMIC = 5.0
"""Numbers whose largest is so many times the smallest are spread by their logarithm."""
SPREAD = 0.1
"""How far lines through one value are apart, of the height."""


def coordinates_picture(search: Search, decision: Decision, path: Path) -> bool:
    """Draw parallel axes: a line goes through the settings of a trial to its loss.

    Returns:
        Whether two settings or more were varied in two trials or more.
    """
    trials = _one_of_each(search)
    names = _varied(trials)
    if len(trials) < 2 or len(names) < 2:
        return False
    figure = Figure(figsize=(8, 5.2))
    axes = figure.subplots()
    losses = {trial.number: _loss(trial) for trial in trials}
    ranked = sorted(trials, key=lambda trial: losses[trial.number])
    places = [_places(axes, i, name, ranked) for i, name in enumerate(names)]
    places.append(_loss_places(axes, len(names), [losses[trial.number] for trial in ranked]))
    taken = search.trial(decision.winner) if decision.winner is not None else None
    own, shared = search.trial(search.own), _of_all(trials)
    for rank, trial in reversed(list(enumerate(ranked))):
        gray = 0.35 + 0.5 * rank / max(1, len(ranked) - 1)
        style: dict[str, Any] = {"color": str(gray), "linewidth": 1.0, "zorder": 2}
        if own and _same(trial, own, shared):
            label = tr("the config's own settings")
            style = {"color": "black", "linewidth": 2.2, "linestyle": "--", "label": label}
        if taken and _same(trial, taken, shared):
            style = {"color": "black", "linewidth": 3.2, "label": tr("taken")}
        axes.plot(range(len(places)), [place[rank] for place in places], **style)
    for i in range(len(places)):
        axes.axvline(i, color="black", linewidth=0.8, zorder=1)
    heads = [*map(short_name, names), tr("loss")]
    axes.set_xticks(range(len(heads)), heads)
    axes.tick_params(axis="x", top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.set(xlim=(-0.35, len(heads) - 0.45), ylim=(-0.1, 1.1), yticks=[])
    for side in axes.spines.values():
        side.set_visible(False)
    title = tr("Settings and loss: a line for each trial, the darker the lower its loss")
    axes.set_title(title, fontsize=11, pad=12)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2, frameon=False)
    save_picture(figure, path)
    return True


def _one_of_each(search: Search) -> list[Trial]:
    """Return one trial for each settings: those of the tries, and of the finals without one."""
    measured = [x for x in search.trials if x.curve and math.isfinite(_loss(x))]
    names = _of_all(measured)
    found: dict[tuple[str, ...], Trial] = {}
    for trial in sorted(measured, key=lambda trial: trial.full_schedule):
        found.setdefault(tuple(value_text(trial.settings[name]) for name in names), trial)
    return list(found.values())


def _of_all(trials: Sequence[Trial]) -> list[str]:
    """Return the settings that every trial has; a try has no number of epochs."""
    names = dict.fromkeys(name for trial in trials for name in trial.settings)
    return [name for name in names if all(name in trial.settings for trial in trials)]


def _same(one: Trial, other: Trial, names: Sequence[str]) -> bool:
    return all(one.settings[name] == other.settings.get(name) for name in names)


def _loss(trial: Trial) -> float:
    return min((point.loss for point in trial.curve), default=math.nan)


def _varied(trials: Sequence[Trial]) -> list[str]:
    """Return the settings of all trials that have several values.

    Of settings in proportion to each other the first is enough.
    """
    names: list[str] = []
    columns: list[list[float]] = []
    for name in _of_all(trials):
        values = [trial.settings[name] for trial in trials]
        numbers = _numbers(values)
        if len({value_text(x) for x in values}) > 1 and not any(
            _proportional(numbers, other) for other in columns
        ):
            names.append(name)
            columns.append(numbers)
    return names


def _numbers(values: Sequence[Any]) -> list[float]:
    """Return values as numbers, none if one is not a number."""
    if all(isinstance(x, int | float) and not isinstance(x, bool) for x in values):
        return [float(x) for x in values]
    return []


def _proportional(one: Sequence[float], other: Sequence[float]) -> bool:
    if not one or not other:
        return False
    return all(math.isclose(x * other[0], y * one[0]) for x, y in zip(one, other, strict=True))


def _places(axes: Axes, place: int, name: str, trials: Sequence[Trial]) -> list[float]:
    """Return the heights of the trials' values on an axis, and write the values beside it."""
    values = [trial.settings[name] for trial in trials]
    numbers = _numbers(values)
    distinct = sorted({value_text(x) for x in values})
    if numbers and len(distinct) > 6:
        log = min(numbers) > 0 and max(numbers) / min(numbers) >= LOGARITHMIC
        scaled = [math.log(x) if log else x for x in numbers]
        low, high = min(scaled), max(scaled)
        for at in _marks(min(numbers), max(numbers), log):
            share = ((math.log(at) if log else at) - low) / (high - low)
            _write(axes, place, share, value_text(at))
        return [(x - low) / (high - low) for x in scaled]
    if numbers:
        order = sorted(range(len(values)), key=numbers.__getitem__)
        distinct = list(dict.fromkeys(value_text(values[i]) for i in order))
    heights = {text: i / max(1, len(distinct) - 1) for i, text in enumerate(distinct)}
    for text, height in heights.items():
        _write(axes, place, height, text)
    # Lines through one value are set apart by rank, so that none hides the others.
    step = SPREAD / max(1, len(values) - 1)
    texts = [value_text(x) for x in values]
    return [heights[text] + SPREAD / 2 - step * rank for rank, text in enumerate(texts)]


def _marks(low: float, high: float, log: bool) -> list[float]:
    """Return round numbers between two, or the two alone."""
    found = [float(x) for x in MaxNLocator(5).tick_values(low, high)]
    if log:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [lead * 10.0**power for power in powers for lead in (1, 2, 5)]
    inside = [x for x in found if low <= x <= high]
    return inside if len(inside) > 1 else [low, high]


def _loss_places(axes: Axes, place: int, losses: Sequence[float]) -> list[float]:
    """Return the heights of losses by their rank, as one that diverged would hide the others."""
    last = len(losses) - 1
    for rank in sorted({0, last // 4, last // 2, 3 * last // 4, last}):
        _write(axes, place, rank / last, f"{losses[rank]:.3f}")
    return [rank / last for rank in range(len(losses))]


def _write(axes: Axes, place: int, height: float, text: str) -> None:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    axes.text(place + 0.03, height, text, va="center", fontsize=9, zorder=5, bbox=box)
