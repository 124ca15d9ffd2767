"""metrics.csv: every logged number of a run as one table."""

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

COLUMNS = (
    "step",
    "epoch",
    "train/loss",
    "train/lr",
    "train/grad_norm",
    "train/tokens_per_s",
    "val/loss",
    "val/perplexity",
)
Points = list[tuple[int, float]]


class MetricsTable(Logger):
    """A Lightning logger that a resumed run goes on with; CSVLogger would begin anew.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.first = True

    @property
    def name(self) -> str:
        """No name: the run's folder has one."""
        return ""

    @property
    def version(self) -> str:
        """No version either."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        rows = []
        if self.first and self.path.exists():
            # Steps after the checkpoint that a run goes on from are computed again.
            rows = [row for row in read(self.path) if int(row["step"]) < (step or 0)]
        self.first, begin = False, self.first
        with self.path.open("w" if begin else "a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            if begin:
                writer.writeheader()
                writer.writerows(rows)
            writer.writerow(metrics | {"step": step})


def read(path: Path) -> list[dict[str, str]]:
    """The rows of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def losses(path: Path) -> tuple[Points, Points]:
    """The (step, loss) of training and of validation."""
    rows = read(path)

    def points(name: str) -> Points:
        return [(int(row["step"]), float(row[name])) for row in rows if row[name]]

    return points("train/loss"), points("val/loss")
