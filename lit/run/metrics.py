"""metrics.csv: every logged number of a run as one table."""

import csv
import io
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lora.files import write_text

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
        done: Optimizer steps that the run has done already; later ones are computed again.
    """

    def __init__(self, path: Path, done: int = 0) -> None:
        super().__init__()
        self.path, self.done = path, done
        self.begun = False

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
        row = {name: str(metrics[name]) for name in COLUMNS if name in metrics}
        row["step"] = str(step)
        if not self.begun or (self.done and (step or 0) <= self.done):
            self._rewrite(row)
            self.begun = True
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)

    def _rewrite(self, row: dict[str, str]) -> None:
        """Write the table as it was after the steps done, with a row in place of its like."""
        rows = read(self.path) if self.done and self.path.exists() else []
        # A validation has the number of steps before it, a step the number of those before it.
        rows = [old for old in rows if int(old["step"]) < self.done + bool(old["val/loss"])]
        like = [i for i, old in enumerate(rows) if _kind(old) == _kind(row)]
        rows[slice(like[0], like[-1] + 1) if like else slice(len(rows), None)] = [row]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())


def _kind(row: dict[str, str]) -> tuple[str, bool]:
    """What tells a step's row of training from its row of validation."""
    return row["step"], bool(row.get("val/loss"))


def step_record(trainer: L.Trainer) -> dict[str, float]:
    """What Lightning is about to log of the optimizer step that has just ended."""
    if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
        return {}
    values = trainer.callback_metrics.items()
    record = {name: float(value) for name, value in values if name.startswith("train/")}
    return record | {"epoch": trainer.current_epoch}


def read(path: Path) -> list[dict[str, str]]:
    """The rows of the table, without one that was cut off in writing."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if line.endswith("\n")))


def losses(path: Path) -> tuple[Points, Points]:
    """The (step, loss) of training and of validation."""
    rows = read(path)

    def points(name: str) -> Points:
        return [(int(row["step"]), float(row[name])) for row in rows if row[name]]

    return points("train/loss"), points("val/loss")
