"""The logger that writes metrics.csv."""

import csv
import io
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lit.run.metrics_file import COLUMNS, read_table
from lora.storage.files import write_text


class MetricsTable(Logger):
    """A Lightning logger that continues its file in a resumed run; CSVLogger would start a new one.

    Args:
        path: The file.
        done: Optimizer steps that the run has done already; rows of later steps are replaced.
    """

    def __init__(self, path: Path, done: int = 0) -> None:
        super().__init__()
        self.path, self.done = path, done
        self.started = False
        self.columns = [*COLUMNS]

    @property
    def name(self) -> str:
        """Return an empty name: the run's folder has one."""
        return ""

    @property
    def version(self) -> str:
        """Return an empty version."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: config.yaml holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row; a metric of a person's own callback gets a column at the right."""
        row = {name: str(value) for name, value in metrics.items()} | {"step": str(step)}
        known = len(self.columns)
        self._add_columns(row)
        if not self.started or (self.done and (step or 0) <= self.done):
            self._rewrite(row)
            self.started = True
            return
        if len(self.columns) > known:
            self._write([*read_table(self.path), row])
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _rewrite(self, row: dict[str, str]) -> None:
        """Write the rows of the steps done, and the new row in place of one of the same kind."""
        rows = read_table(self.path) if self.done and self.path.exists() else []
        # A validation is logged with the number of steps before it, a step with its index.
        rows = [old for old in rows if int(old["step"]) < self.done + bool(old["val/loss"])]
        same = [i for i, old in enumerate(rows) if _kind(old) == _kind(row)]
        rows[slice(same[0], same[-1] + 1) if same else slice(len(rows), None)] = [row]
        for old in rows:
            self._add_columns(old)
        self._write(rows)

    def _add_columns(self, row: dict[str, str]) -> None:
        self.columns += [name for name in row if name not in self.columns]

    def _write(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())


def _kind(row: dict[str, str]) -> tuple[str, bool, bool]:
    """Return a row's step and what it is of: no two rows of a run have the same."""
    return row["step"], bool(row.get("val/loss")), bool(row.get("train/loss"))


def step_record(trainer: L.Trainer) -> dict[str, float]:
    """Return what Lightning will log of the optimizer step that has just ended."""
    if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
        return {}
    values = trainer.callback_metrics.items()
    record = {name: float(value) for name, value in values if name.startswith("train/")}
    return record | {"epoch": trainer.current_epoch}
