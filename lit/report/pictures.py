"""Pictures of losses, answers, row lengths and one example."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from data.text import clean
from lit.messages import tr
from lora.storage.files import replacing

matplotlib.rcParams["text.parse_math"] = False  # answers contain dollar signs, not formulas

MASKED, LABELED = "#6b7280", "#15803d"
Points = Sequence[tuple[int, float]]
"""(optimizer step, loss) pairs."""


def loss_picture(train: Points, val: Points, path: Path) -> None:
    """Draw the training and validation losses of a run.

    Args:
        train: The loss of each optimizer step.
        val: The loss of each validation; step 0 is the base model.
        path: The .png file to write.
    """
    figure = Figure(figsize=(8, 4.5))
    axes = figure.subplots()
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color="#9ecae1", linewidth=1, label=tr("training, each step"))
        axes.plot(steps, _smooth(losses), color="#2171b5", label=tr("training, smoothed"))
    if val:
        steps, losses = zip(*val, strict=True)
        axes.plot(steps, losses, "o-", color="#d94801", label=tr("validation"))
        for step, loss in val:
            axes.annotate(
                f"{loss:.2f}", (step, loss), (0, 7), textcoords="offset points", ha="center"
            )
    axes.set(xlabel=tr("optimizer step"), ylabel=tr("loss (nats per token)"))
    axes.grid(alpha=0.3)
    axes.legend()
    save_picture(figure, path)


def answers_picture(rows: Sequence[tuple[str, str, str, str]], path: Path, title: str) -> None:
    """Draw a table of questions with the answers of both models.

    Args:
        rows: (question, reference answer, answer of the base model, answer of the tuned model).
        path: The .png file to write.
        title: The line above the table.
    """
    widths, characters = (0.16, 0.22, 0.31, 0.31), (20, 29, 42, 42)
    wrapped = [[_wrap(text, n) for text, n in zip(row, characters, strict=True)] for row in rows]
    heights = [1.6, *(max(cell.count("\n") for cell in row) + 2.2 for row in wrapped)]
    figure = Figure(figsize=(13, 0.19 * sum(heights) + 0.2))
    axes = figure.subplots()
    axes.axis("off")
    axes.set_title(_wrap(title, 120, 2), loc="left", fontsize=11)
    table = axes.table(
        [list(row) for row in wrapped],
        colLabels=[tr("question"), tr("reference answer"), tr("base"), tr("tuned")],
        colWidths=widths,
        cellLoc="left",
        bbox=Bbox.unit(),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (row, column), cell in table.get_celld().items():
        cell.set_height(heights[row] / sum(heights))
        cell.PAD = 0.008 / widths[column]  # matplotlib's default is a tenth of the width
        # Letters of one width: lines are wrapped by their number.
        cell.get_text().set_fontfamily("DejaVu Sans Mono")
        cell.set_edgecolor("#d1d5db")
        if row == 0:
            cell.set_facecolor("#f3f4f6")
    save_picture(figure, path)


def example_picture(spans: Sequence[tuple[str, bool]], path: Path, title: str) -> None:
    """Draw one row as the model sees it.

    Args:
        spans: (text, whether its tokens have labels), in order.
        path: The .png file to write.
        title: The line above the row.
    """
    blocks = [(_wrap(text.strip("\n"), 100, 60), labeled) for text, labeled in spans]
    heights = [block.count("\n") + 1.4 for block, _ in blocks]
    figure = Figure(figsize=(11, 0.21 * (sum(heights) + 3)))
    axes = figure.subplots()
    axes.axis("off")
    axes.set_title(_wrap(title, 100, 2), loc="left", fontsize=11)
    total, top = sum(heights) + 2, 0.0
    axes.text(0, 1, tr("masked"), color=MASKED, va="top", fontsize=10, weight="bold")
    axes.text(0.1, 1, tr("labeled"), color=LABELED, va="top", fontsize=10, weight="bold")
    for (block, labeled), height in zip(blocks, heights, strict=True):
        axes.text(
            0,
            1 - (top + 2) / total,
            block,
            color=LABELED if labeled else MASKED,
            va="top",
            fontsize=10,
            family="DejaVu Sans Mono",
        )
        top += height
    save_picture(figure, path)


def lengths_picture(lengths: np.ndarray, path: Path) -> None:
    """Draw a histogram of row lengths.

    Args:
        lengths: (rows,) tokens of each row.
        path: The .png file to write.
    """
    figure = Figure(figsize=(8, 3.5))
    axes = figure.subplots()
    axes.hist(lengths, bins=min(40, len(np.unique(lengths))), color="#2171b5")
    axes.set(xlabel=tr("tokens"), ylabel=tr("rows"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    save_picture(figure, path)


def save_picture(figure: Figure, path: Path) -> None:
    """Write a figure as a .png file, replaced atomically."""
    with replacing(path) as new:
        figure.savefig(new, dpi=120, bbox_inches="tight", pad_inches=0.15)


def _wrap(text: str, width: int, lines: int = 14) -> str:
    """Wrap a text to a number of lines; an ellipsis replaces the rest."""
    text = clean(text)
    wrapped = [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]
    shown = wrapped[:lines] + (["…"] if len(wrapped) > lines else [])
    return "\n".join(shown)


def _smooth(values: Sequence[float], weight: float = 0.9) -> list[float]:
    """Return the exponential moving average, corrected for the bias of its start."""
    smooth, average, total = [], 0.0, 0.0
    for value in values:
        average = weight * average + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth.append(average / total)
    return smooth
