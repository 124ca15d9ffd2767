"""The pictures of a search, readable in black and white."""

from pathlib import Path

from matplotlib.figure import Figure

from lit.messages import tr
from lit.report.pictures import save_picture
from lit.searching.outcome.coordinates import coordinates_picture
from lit.searching.outcome.decision import Decision
from lit.searching.outcome.loss_axes import SIZE, add_legend, set_limits
from lit.searching.outcome.rates import rates_picture
from lit.searching.records import Search, Trial


def draw_pictures(search: Search, decision: Decision, folder: Path) -> list[str]:
    """Draw what the trials have numbers for.

    Returns:
        The names of the files.
    """
    drawn = {
        "loss_by_learning_rate.png": rates_picture,
        "validation_curves.png": curves_picture,
        "settings.png": coordinates_picture,
    }
    return [name for name, draw in drawn.items() if draw(search, decision, folder / name)]


def curves_picture(search: Search, decision: Decision, path: Path) -> bool:
    """Draw the validation losses of each trial.

    Returns:
        Whether there was something to draw.
    """
    trials = [trial for trial in search.trials if trial.curve]
    if not trials:
        return False
    figure = Figure(figsize=SIZE)
    axes = figure.subplots()
    top = set_limits(axes, search, [point.loss for trial in trials for point in trial.curve])
    for trial in sorted(trials, key=lambda trial: _line(trial, search, decision)[2]):
        style, width, order, color, label = _line(trial, search, decision)
        axes.plot(
            [point.epoch for point in trial.curve],
            [point.loss for point in trial.curve],
            style,
            color=color,
            linewidth=width,
            label=label,
            zorder=2 + order,
        )
        last = trial.curve[-1]
        if trial.state != "finished" and last.loss <= top:
            end = tr("stopped early or failed here")
            axes.plot([last.epoch], [last.loss], "x", color="#6b7280", label=end, zorder=4)
    axes.set_xlabel(tr("epoch: passes over the training rows"))
    axes.set_ylabel(tr("loss of the choosing rows, nats per label"))
    axes.set_title(tr("Validation loss of each trial while it trained"), fontsize=11)
    axes.grid(alpha=0.3)
    add_legend(axes)
    save_picture(figure, path)
    return True


def _line(trial: Trial, search: Search, decision: Decision) -> tuple[str, float, int, str, str]:
    """Return the style, width, order, color and label of a curve."""
    if trial.number == decision.winner:
        return "-", 3.0, 3, "black", tr("taken")
    if trial.number == search.own:
        return "--", 2.2, 2, "black", tr("the config's own settings")
    if trial.full_schedule:
        return "-.", 1.3, 1, "#374151", tr("whole schedule")
    return "-", 0.9, 0, "#9ca3af", tr("constant learning rate")
