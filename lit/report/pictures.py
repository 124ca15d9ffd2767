"""Pictures: losses, answers side by side, one example with its labels."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lit.run.metrics import Points

matplotlib.rcParams["text.parse_math"] = False  # a dollar sign in an answer is a dollar sign

MASKED, LEARNED = "#6b7280", "#15803d"


def loss_picture(train: Points, val: Points, path: Path) -> None:
    """Draw the losses of a run.

    Args:
        train: (optimizer step, loss) of each step.
        val: The same of each validation; step 0 is the base model.
        path: A .png file.
    """
    figure = Figure(figsize=(8, 4.5))
    axes = figure.subplots()
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color="#9ecae1", linewidth=1, label="training, each step")
        axes.plot(steps, _smooth(losses), color="#2171b5", label="training, smoothed")
    if val:
        steps, losses = zip(*val, strict=True)
        axes.plot(steps, losses, "o-", color="#d94801", label="validation")
        for step, loss in val:
            axes.annotate(
                f"{loss:.2f}", (step, loss), (0, 7), textcoords="offset points", ha="center"
            )
    axes.set(xlabel="optimizer step", ylabel="loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


def answers_picture(rows: Sequence[tuple[str, str, str]], path: Path) -> None:
    """Draw a table of questions with both answers.

    Args:
        rows: (question, base's answer, tuned's answer).
        path: A .png file.
    """
    widths, characters = (0.2, 0.4, 0.4), (24, 52, 52)
    wrapped = [[_wrap(text, n) for text, n in zip(row, characters, strict=True)] for row in rows]
    heights = [1.6, *(max(cell.count("\n") for cell in row) + 2.2 for row in wrapped)]
    figure = Figure(figsize=(13, 0.19 * sum(heights) + 0.2))
    axes = figure.subplots()
    axes.axis("off")
    table = axes.table(
        [list(row) for row in wrapped],
        colLabels=["question", "base", "tuned"],
        colWidths=widths,
        cellLoc="left",
        bbox=Bbox.unit(),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    for (row, column), cell in table.get_celld().items():
        cell.set_height(heights[row] / sum(heights))
        cell.PAD = 0.008 / widths[column]  # matplotlib's is a tenth of the width
        cell.set_edgecolor("#d1d5db")
        if row == 0:
            cell.set_facecolor("#f3f4f6")
    _save(figure, path)


def example_picture(parts: Sequence[tuple[str, bool]], path: Path) -> None:
    """Draw one row as the model sees it.

    Args:
        parts: (text, whether its tokens are learned), in order.
        path: A .png file.
    """
    blocks = [(_wrap(text.strip("\n"), 100, 60), learned) for text, learned in parts]
    lines = [block.count("\n") + 1.4 for block, _ in blocks]
    figure = Figure(figsize=(11, 0.21 * (sum(lines) + 3)))
    axes = figure.subplots()
    axes.axis("off")
    total, top = sum(lines) + 2, 0.0
    axes.text(0, 1, "masked", color=MASKED, va="top", fontsize=10, weight="bold")
    axes.text(0.1, 1, "learned", color=LEARNED, va="top", fontsize=10, weight="bold")
    for (block, learned), height in zip(blocks, lines, strict=True):
        axes.text(
            0,
            1 - (top + 2) / total,
            block,
            color=LEARNED if learned else MASKED,
            va="top",
            fontsize=10,
            family="DejaVu Sans Mono",
        )
        top += height
    _save(figure, path)


def lengths_picture(lengths: np.ndarray, path: Path) -> None:
    """Draw how many rows have how many tokens.

    Args:
        lengths: (rows,) tokens of each row.
        path: A .png file.
    """
    figure = Figure(figsize=(8, 3.5))
    axes = figure.subplots()
    axes.hist(lengths, bins=min(40, len(np.unique(lengths))), color="#2171b5")
    axes.set(xlabel="tokens", ylabel="rows")
    axes.grid(alpha=0.3)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.15)


def _wrap(text: str, width: int, lines: int = 14) -> str:
    """Text in lines, the last of them … where there are more."""
    wrapped = [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]
    shown = wrapped[:lines] + (["…"] if len(wrapped) > lines else [])
    return "\n".join(shown)


def _smooth(values: tuple[float, ...], weight: float = 0.9) -> list[float]:
    """An exponential average, corrected for its start."""
    smooth, average, total = [], 0.0, 0.0
    for value in values:
        average = weight * average + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth.append(average / total)
    return smooth
