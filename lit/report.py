"""Pictures of a run."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no window, whatever the machine has

from matplotlib import pyplot as plt

from lit.metrics import Points


def loss_picture(train: Points, val: Points, path: Path) -> None:
    """Draw the losses of a run.

    Args:
        train: (optimizer step, loss) of each step.
        val: The same of each validation; step 0 is the base model.
        path: A .png file.
    """
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=120)
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color="#9ecae1", linewidth=1, label="training, each step")
        axes.plot(steps, _smooth(losses), color="#2171b5", label="training, smoothed")
    if val:
        steps, losses = zip(*val, strict=True)
        axes.plot(steps, losses, "o-", color="#d94801", label="validation")
        for step, loss in val:
            axes.annotate(f"{loss:.2f}", (step, loss), (0, 7), textcoords="offset points")
    axes.set(xlabel="optimizer step", ylabel="loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _smooth(values: tuple[float, ...], weight: float = 0.9) -> list[float]:
    """An exponential average, corrected for its start."""
    smooth, average, total = [], 0.0, 0.0
    for value in values:
        average = weight * average + (1 - weight) * value
        total = weight * total + (1 - weight)
        smooth.append(average / total)
    return smooth
