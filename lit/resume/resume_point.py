"""Going on from a checkpoint, as if the run had never stopped."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from lit.resume.checkpoint import AtomicCheckpointIO
from lit.resume.settings_diff import Settings
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.lightning_internals import (
    batch_progress,
    checkpoint_position,
    fit_position,
    run_due_validation,
    set_checkpoint_position,
    shift_batch_progress,
    step_ends,
    validation_is_due,
)
from lit.run.metrics import step_record
from lora.config import ConfigError

NEEDED = {"state_dict", "global_step", "loops", "optimizer_states", "lr_schedulers", "callbacks"}
RUN = "lit-lora"
"""The key of a checkpoint under which stands what is named here."""


@dataclass(frozen=True)
class ResumePoint:
    """Where a run goes on from; one that begins has step 0 and no path."""

    path: Path | None = None
    step: int = 0
    settings: Settings = field(default_factory=dict)
    """Of the run; empty where the checkpoint does not tell."""
    validation_due: bool = False
    """Whether the run was to validate after this step, and had not yet."""
    record: dict[str, float] = field(default_factory=dict)
    """What the step logged, or was about to log."""
    step_map: list[tuple[int, int, int, int]] = field(default_factory=list)
    """The segments of the run; see ``data.step_map``."""
    loops: dict[str, Any] = field(default_factory=dict)
    """Lightning's own position."""

    @classmethod
    def read(cls, path: Path | str) -> "ResumePoint":
        """Read a checkpoint.

        Raises:
            ConfigError: It is broken, or lacks what a run needs to go on.
        """
        loaded = AtomicCheckpointIO().load_checkpoint(path)
        if not isinstance(loaded, dict) or (missing := sorted(NEEDED - loaded.keys())):
            lacks = ", ".join(missing) if isinstance(loaded, dict) else "everything"
            raise ConfigError(f"{path} is not a checkpoint to go on from: it lacks {lacks}")
        own = loaded.get(RUN, {})
        position = checkpoint_position(loaded)
        return cls(Path(path), loaded["global_step"], loops=position, **own)

    @classmethod
    def find(cls, folder: RunFolder, asked: str) -> "ResumePoint":
        """The checkpoint that ``--ckpt_path`` means: a file, or the newest whole one for ``last``.

        Raises:
            ConfigError: There is none.
        """
        if asked != "last":
            if "://" not in asked and not Path(asked).is_file():
                raise ConfigError(f"there is no checkpoint {asked} to go on from")
            return cls.read(asked)
        others = sorted(set(folder.checkpoints.glob("*.ckpt")) - {folder.last})
        if not (folder.last.is_file() or others):
            raise ConfigError(f"there is no checkpoint {folder.last} to go on from")
        reason = f"there is no {folder.last}"
        if folder.last.is_file():
            try:
                return cls.read(folder.last)
            except (ConfigError, OSError) as error:
                reason = str(error)
        whole = []
        for path in others:
            try:
                whole.append(cls.read(path))
            except (ConfigError, OSError) as error:
                reason += f"; {error}"
        if not whole:
            raise ConfigError(f"no checkpoint of {folder.checkpoints} is whole: {reason}")
        newest = max(whole, key=lambda resume_point: resume_point.step)
        print_rank0(f"resume {reason}. Going on from the one before, {newest.path}")
        return newest


class ResumeState(Callback):
    """Writes into each checkpoint what going on needs, and does what the last run left undone.

    Args:
        settings: Of this run.
        resume_point: Where it goes on from.
    """

    def __init__(self, settings: Settings, resume_point: ResumePoint) -> None:
        self.settings, self.resume_point = settings, resume_point
        self.validated = -1
        """The optimizer step of the last validation."""
        self.noted, self.loops, self.record = (
            resume_point.step,
            resume_point.loops,
            resume_point.record,
        )

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tell Lightning its position in micro_steps of as many ranks as there are now."""
        epoch, done = batch_progress(checkpoint)
        if not done:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        shift_batch_progress(checkpoint, data.micro_step(epoch, self.resume_point.step) - done)
        self.loops = checkpoint_position(checkpoint)

    def on_fit_start(self, trainer: L.Trainer, *_: object) -> None:
        """Log the step that the checkpoint was written after: its run may not have come to it."""
        if self.resume_point.record:
            for logger in trainer.loggers:
                logger.log_metrics(self.resume_point.record, self.resume_point.step - 1)

    def on_train_start(self, trainer: L.Trainer, *_: object) -> None:
        """Validate if that was due."""
        if self.resume_point.validation_due:
            run_due_validation(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Note what holds after an optimizer step, for a checkpoint in or after the validation."""
        if step_ends(trainer):
            self.noted, self.record = trainer.global_step, step_record(trainer)
            self.loops = fit_position(trainer)

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Note that the validation is done."""
        self.validated = trainer.global_step

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what ``ResumePoint`` reads."""
        validated = self.validated == trainer.global_step
        if trainer.validating and not validated:
            set_checkpoint_position(checkpoint, self.loops)
        due = trainer.validating or validation_is_due(trainer)
        checkpoint[RUN] = {
            "settings": self.settings,
            "step_map": [tuple(segment) for segment in trainer.datamodule.step_map.segments],  # type: ignore[attr-defined]
            "validation_due": due and not validated,
            "record": self.record if self.noted == trainer.global_step else step_record(trainer),
        }
