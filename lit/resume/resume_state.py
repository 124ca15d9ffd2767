"""The callback that saves and restores what Lightning's checkpoints lack for an exact resume."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from lit.fast_layers.library import library_of
from lit.resume.resume_point import CHECKPOINT_KEY, ResumePoint
from lit.resume.settings_diff import Settings
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
from lit.train.datamodule import QADataModule


class ResumeState(Callback):
    """Adds to each checkpoint what a ``ResumePoint`` holds; at the start does what was left undone.

    Args:
        settings: Settings of this run.
        resume_point: Where it resumes.
        data: The data module, whose plans know the steps of each epoch.
    """

    def __init__(self, settings: Settings, resume_point: ResumePoint, data: QADataModule) -> None:
        self.settings, self.resume_point, self.data = settings, resume_point, data
        self.validated_step = -1
        """The optimizer step of the last validation."""
        self.recorded_step = resume_point.step
        """The optimizer step of ``loops`` and ``record``."""
        self.loops, self.record = resume_point.loops, resume_point.record

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Convert Lightning's position to micro-steps of the current number of ranks."""
        epoch, done = batch_progress(checkpoint)
        if not done:
            return
        micro_step = self.data.plans.micro_step(epoch, self.resume_point.step)
        shift_batch_progress(checkpoint, micro_step - done)
        self.loops = checkpoint_position(checkpoint)

    def on_fit_start(self, trainer: L.Trainer, *_: object) -> None:
        """Log the checkpoint's step: the run may have been killed before it did."""
        if self.resume_point.record:
            for logger in trainer.loggers:
                logger.log_metrics(self.resume_point.record, self.resume_point.step - 1)

    def on_train_start(self, trainer: L.Trainer, *_: object) -> None:
        """Validate if a validation was due when the checkpoint was written."""
        if self.resume_point.validation_due:
            run_due_validation(trainer)

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Keep the state after an optimizer step, for a checkpoint during or after a validation."""
        if step_ends(trainer):
            self.recorded_step, self.record = trainer.global_step, step_record(trainer)
            self.loops = fit_position(trainer)

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Remember that this step was validated."""
        self.validated_step = trainer.global_step

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what ``ResumePoint`` reads."""
        step = trainer.global_step
        validated = self.validated_step == step
        if trainer.validating and not validated:
            set_checkpoint_position(checkpoint, self.loops)
        due = trainer.validating or validation_is_due(trainer)
        checkpoint[CHECKPOINT_KEY] = {
            "settings": self.settings,
            "step_map": [tuple(segment) for segment in self.data.plans.step_map.segments],
            "validation_due": due and not validated,
            "record": self.record if self.recorded_step == step else step_record(trainer),
            "library": library_of(pl_module),
        }
