"""The picture of losses by learning rate.

Marks tell the kinds of trials apart, so that it is read in black and white.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from lit.messages import tr
from lit.report.pictures import save_picture
from lit.searching.outcome.decision import Decision
from lit.searching.outcome.loss_axes import SIZE, add_legend, set_limits
from lit.searching.outcome.ties import Candidate, candidates, is_measured
from lit.searching.records import Search, Trial

LR = "model.lr"


class Look(NamedTuple):
    """How a trial is drawn."""

    marker: str
    size: float
    face: str
    edge: str


TAKEN = Look("*", 17, "black", "black")
OWN = Look("D", 9, "white", "black")
TIED = Look("s", 8, "black", "black")
WORSE = Look("s", 8, "white", "black")
TRIED = Look("o", 6, "white", "#6b7280")
STOPPED = Look("x", 7, "#6b7280", "#6b7280")


def rates_picture(search: Search, decision: Decision, path: Path) -> bool:
    """Draw the loss of each trial against its learning rate, with intervals.

    Returns:
        Whether there was something to draw.
    """
    points = [(one, rate) for one in _drawn(search, decision) if (rate := _rate(one.trial))]
    if not points:
        return False
    figure = Figure(figsize=SIZE)
    axes = figure.subplots()
    top = set_limits(
        axes, search, [x for one, _ in points for x in (one.loss, one.high or one.loss)]
    )
    for one, rate in sorted(points, key=lambda point: point[0].order):
        higher = one.loss > top
        if one.low is not None and one.high is not None and not higher:
            axes.plot([rate, rate], [one.low, min(one.high, top)], color="#374151", linewidth=1)
        axes.plot(
            [rate],
            [top if higher else one.loss],
            linestyle="none",
            marker="^" if higher else one.look.marker,
            markersize=one.look.size,
            markerfacecolor=one.look.face,
            markeredgecolor=one.look.edge,
            label=tr("higher than shown") if higher else one.label,
            zorder=3 + one.order,
            clip_on=False,
        )
    axes.set_xscale("log")
    rates = [rate for _, rate in points]
    _rate_ticks(axes, min(rates), max(rates))
    axes.set_xlabel(tr("learning rate (logarithmic)"))
    axes.set_ylabel(tr("loss of the choosing rows, nats per label"))
    axes.set_title(
        tr("Loss by learning rate; bars: 95% interval of the difference to the best"), fontsize=11
    )
    axes.grid(alpha=0.3)
    add_legend(axes)
    save_picture(figure, path)
    return True


class Drawn(NamedTuple):
    """A trial as it is drawn."""

    trial: Trial
    loss: float
    low: float | None
    high: float | None
    look: Look
    label: str
    order: int


def _drawn(search: Search, decision: Decision) -> Iterator[Drawn]:
    """Yield what has a loss: the compared settings once, and the other trials."""
    facts = decision.facts
    compared = facts.compared if facts else ()
    seen = {run.number for one in compared for run in one.runs}
    rest = [trial for trial in search.trials if trial.number not in seen]
    tried = candidates(search, [trial for trial in rest if is_measured(trial)])
    for one in tried:
        own = one.kept.number == search.own and not facts
        label = tr("tried with a constant learning rate")
        yield _placed(one, tried, OWN if own else TRIED, label, 0)
    for trial in rest:
        losses = [point.loss for point in trial.curve if math.isfinite(point.loss)]
        if losses and not is_measured(trial):
            label = tr("stopped early or failed")
            yield Drawn(trial, min(losses), None, None, STOPPED, label, 1)
    for one in compared:
        if facts and one.settings == facts.taken.settings:
            yield _placed(one, compared, TAKEN, tr("taken"), 5)
        elif facts and facts.own and one.settings == facts.own.settings:
            yield _placed(one, compared, OWN, tr("the config's own settings"), 4)
        elif one.tied:
            yield _placed(one, compared, TIED, tr("not told apart from the best"), 3)
        else:
            yield _placed(one, compared, WORSE, tr("worse than the best"), 2)


def _placed(
    one: Candidate, among: Sequence[Candidate], look: Look, label: str, order: int
) -> Drawn:
    """Return settings with their interval around the loss; the best has none."""
    low, high = one.to_best.low, one.to_best.high
    if low is None or high is None or one is among[0]:
        return Drawn(one.kept, one.loss, None, None, look, label, order)
    best = among[0].loss
    return Drawn(one.kept, one.loss, best + low, best + high, look, label, order)


def _rate(trial: Trial) -> float | None:
    rate: Any = trial.settings.get(LR)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or rate <= 0:
        return None
    return float(rate)


def _rate_ticks(axes: Axes, low: float, high: float) -> None:
    """Mark 1, 2 and 5 of each power of ten as plain numbers."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    marks = [lead * 10.0**power for power in range(first - 1, last + 1) for lead in (1, 2, 5)]
    if last - first > 3:
        marks = [10.0**power for power in range(first - 1, last + 1)]
    axes.set_xlim(low / 1.3, high * 1.3)
    axes.set_xticks([x for x in marks if low / 1.3 <= x <= high * 1.3])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
