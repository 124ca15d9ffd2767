"""One base in memory and one tokenization, on which the trials of a search are trained.

A trial is trained by the parts of ``lit.fit``, so its adapter is that of ``lit.fit``, bit for bit.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from transformers import PreTrainedModel

from lit.device.memory import release_cache
from lit.fitting.progress import Throughput
from lit.fitting.results import write_model_card
from lit.measures.losses import summed_losses
from lit.messages import tr
from lit.model.loss import token_losses
from lit.run.command import name_arguments
from lit.run.folder import RunFolder
from lit.searching.records import State, Sums, Trial
from lit.searching.trial_settings import trial_settings
from lit.searching.trials.ledger import Job
from lit.searching.trials.watch import TrialEnded, Watch
from lit.settings.arguments import Arguments, setting_names
from lit.train.best_adapter import BestAdapter
from lit.train.longest_batch import LongestBatchTrial, is_out_of_memory
from lit.train.module import LoRAModule
from lit.train.step_guard import TrainingError
from lora.config import ConfigError
from lora.injection import adapters_disabled, count_parameters, eject


class _Kept(BestAdapter):
    """The best adapter of a trial, in memory, and in a folder if there is one."""

    def save(self, pl_module: L.LightningModule) -> None:
        """Write the adapter, if its trial has a folder."""
        if self.folder.path != Path():
            super().save(pl_module)


class Workbench:
    """The base, the rows, and how a trial is trained on them.

    Args:
        arguments: The settings, with ``data.report_fraction``.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.base: PreTrainedModel | None = None
        arguments.instantiate()
        arguments.make_trainer(callbacks=[], enable_progress_bar=False, logger=False)
        self.data = arguments.datamodule
        self.data.setup()
        self.steps = self.data.total_steps()
        self.steps_of_epoch = max(1, self.data.plans.step_map.total_steps(1))
        self.base_sums: tuple[Sums, Sums] = ((), ())
        self.val_seconds = self.setup_seconds = 0.0

    def labels(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the labels of each choosing row and of each reporting row."""
        counts = self.data.val.label_counts
        choose, report = counts[self.data.val_rows], counts[self.data.report_rows]
        return tuple(choose.tolist()), tuple(report.tolist())

    def train(
        self,
        number: int,
        job: Job,
        watch: Watch,
        folder: Path = Path(),
        callbacks: Callable[[Arguments], list[Callback]] = lambda _: [],
    ) -> Trial:
        """Train a trial, and measure its best adapter.

        Args:
            number: Its number.
            job: What it trains.
            watch: Told of steps and validations; may end the trial.
            folder: Where to write the adapter; by default nowhere.
            callbacks: Returns more callbacks.
        """
        started, module, made = (
            time.monotonic(),
            None,
            trial_settings(self.arguments, job, self.steps),
        )
        state: State = "finished"
        reason, steps, parameters = "", 0, 0
        choose = report = None
        watch.steps_of_epoch = self.steps_of_epoch
        try:
            made.instantiate()
            module, best = made.model, _Kept(RunFolder(folder), self.data)
            trainer = self._trainer(made, job, [best, watch, *callbacks(made)])
            data = made.datamodule
            steps = module.total_steps = data.total_steps()
            module.step_guard.locate_rows = data.step_locations
            try:
                trainer.fit(module, data)
                if best.validated < trainer.global_step:
                    trainer.validate(module, data, verbose=False)
            except TrialEnded as end:
                state, reason = end.state, str(end)
            parameters = count_parameters(module.adapted_model).trainable
            if state != "finished" or job.kind == "try":
                steps = best.step
            if best.tensors and state != "failed":
                module.load_state_dict(best.tensors)
                choose = self._sums(trainer, module, data.val_rows)
                if state == "finished" and job.kind != "try":
                    report = self._sums(trainer, module, data.report_rows)
                    if folder != Path():
                        best.base_loss = sum(self.base_sums[0]) / max(1, sum(self.labels()[0]))
                        write_model_card(made, best.folder, best)
        except (ConfigError, TrainingError) as error:
            state, reason = "failed", name_arguments(str(error), setting_names())
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            state, reason = "failed", tr("out of memory")
        finally:
            self._take_off(module)
        return Trial(
            number,
            job.settings,
            job.seed,
            state,
            reason,
            curve=tuple(point for point in watch.curve if np.isfinite(point.loss)),
            steps=steps,
            parameters=parameters,
            seconds=time.monotonic() - started,
            full_schedule=job.kind != "try" and state == "finished",
            choose=choose,
            report=report,
        )

    def measure_base(self, job: Job, watch: Watch) -> None:
        """Load the base, measure its losses and how long steps take.

        Args:
            job: The config's own settings.
            watch: Told of steps; must end the training.

        Raises:
            ConfigError, TrainingError: The config's own settings cannot be trained.
        """
        started, made = time.monotonic(), trial_settings(self.arguments, job, self.steps)
        made.instantiate()
        module = made.model
        trainer = self._trainer(made, job, [watch])
        module.total_steps = made.datamodule.total_steps()
        try:
            trainer.validate(module, made.datamodule, verbose=False)
            self.setup_seconds = time.monotonic() - started
            since = time.monotonic()
            choose = self._base_sums(trainer, module, self.data.val_rows)
            self.val_seconds = time.monotonic() - since
            self.base_sums = choose, self._base_sums(trainer, module, self.data.report_rows)
            trainer.fit(module, made.datamodule)
        except TrialEnded:
            pass
        finally:
            self._take_off(module)

    def _trainer(self, made: Arguments, job: Job, callbacks: list[Callback]) -> L.Trainer:
        made.model.spec = replace(made.model.spec, loaded=self.base)
        data = copy.copy(self.data)
        # The plans of epochs depend on the seed and on the trainer.
        vars(data).pop("plans", None)
        data.seed, data.val_every_n_steps = job.seed, made.config["data.val_every_n_steps"]
        made.datamodule = data
        trainer = made.make_trainer(
            callbacks=[*callbacks, Throughput(), LongestBatchTrial(data.largest_micro_batch)],
            enable_progress_bar=False,
            logger=False,
        )
        # A trial that is killed is run again from its start.
        own: list[Callback] = getattr(trainer, "callbacks")  # noqa: B009 (mypy does not know it)
        own[:] = [callback for callback in own if not isinstance(callback, ModelCheckpoint)]
        return trainer

    def _base_sums(self, trainer: L.Trainer, module: LoRAModule, rows: np.ndarray) -> Sums:
        # An adapter that a run goes on from is its start.
        if module.adapter:
            return self._sums(trainer, module, rows)
        with adapters_disabled(module.adapted_model):
            return self._sums(trainer, module, rows)

    @torch.no_grad()
    def _sums(self, trainer: L.Trainer, module: LoRAModule, rows: np.ndarray) -> Sums:
        """Return the summed loss of each row under the model as it is."""
        examples = [self.data.val.example(row) for row in rows.tolist()]
        module.adapted_model.eval()
        with trainer.precision_plugin.val_step_context():
            sums = summed_losses(
                lambda batch: module.call(token_losses, batch), examples, module.device
            )
        if not np.isfinite(sums).all():
            raise TrainingError(tr("the loss of a row is not finite"))
        return tuple(sums.tolist())

    def _take_off(self, module: LoRAModule | None) -> None:
        """Make the model the base again."""
        if module is not None and module.model is not None:
            module.noise.remove()
            self.base = module.model
            module.model = None
        if self.base is not None:
            eject(self.base).eval()
            release_cache(self.base.device)
