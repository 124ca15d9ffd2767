"""A training run from its settings to its folder."""

import json
import sys
from dataclasses import replace

from lightning.pytorch.loggers import TensorBoardLogger

from data.planning.step_map import describe_step_change
from lit.distributed.ranks import Ranks
from lit.fitting.progress import ProgressLines, Throughput
from lit.fitting.progress_bar import ProgressBar
from lit.fitting.results import write_results
from lit.fitting.summary import print_result, print_rows_and_plan
from lit.fitting.val_matching import ValMatching
from lit.messages import tr
from lit.preflight.forecast import forecast
from lit.preflight.sharing import settle_sharing
from lit.preflight.verdict import judge, refuse
from lit.resume.checkpoint import AtomicCheckpointIO
from lit.resume.resume_point import ResumePoint
from lit.resume.resume_state import ResumeState
from lit.resume.settings_diff import Settings, check_settings, rows_digest, same_length, to_json
from lit.resume.stopping import StopOnSignal
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.metrics import MetricsTable
from lit.settings.arguments import Arguments
from lit.train.best_adapter import BestAdapter
from lit.train.longest_batch import LongestBatchTrial
from lit.train.sample_answers import SampleAnswers


def fit(arguments: Arguments, ranks: Ranks) -> None:
    """Run a training: check the settings, measure the base, train, write the run's folder.

    Args:
        arguments: The settings.
        ranks: The processes of the run.

    Raises:
        ConfigError, DataError: A setting or the data cannot be used.
        TrainingError: Training cannot continue.
        StoppedError: A signal came; the run can be resumed from ``last.ckpt``.
    """
    folder = RunFolder(arguments.config.output_dir)
    resume = arguments.config.ckpt_path
    in_place = bool(resume) and folder.has_checkpoint(resume)
    folder.check_inputs(arguments.inputs())
    with folder.claimed(resume=in_place, overwrite=arguments.config.overwrite):
        start = ResumePoint.find(folder, resume) if resume else ResumePoint()
        if precision := start.settings.get("trainer.precision"):
            arguments.hardware.resume_in(json.loads(precision))
        current = to_json(arguments.settings())
        changes = check_settings(start.settings, current)
        complete = start.path == folder.last and folder.picture.is_file()
        if complete and same_length(start.settings, current):
            _print_complete(folder, start)
            return
        Training(arguments, ranks, folder, start, current).run(changes)


class Training:
    """The objects of one run, and the order in which they work.

    Args:
        arguments: The settings.
        ranks: The processes of the run.
        folder: The run's folder, claimed by this process.
        start: The checkpoint to resume from; an empty one for a new run.
        settings: The settings in the form that checkpoints hold.
    """

    def __init__(
        self,
        arguments: Arguments,
        ranks: Ranks,
        folder: RunFolder,
        start: ResumePoint,
        settings: Settings,
    ) -> None:
        self.arguments, self.ranks, self.folder = arguments, ranks, folder
        self.start, self.settings = start, settings
        self.in_place = bool(start.path) and folder.has_checkpoint(str(start.path))
        """Whether the run resumes in the folder of its checkpoint."""
        arguments.instantiate()
        self.model, self.data = arguments.model, arguments.datamodule
        self.model.spec = replace(self.model.spec, library=start.library)
        best_by = arguments.best_by()
        self.best, self.throughput = BestAdapter(folder, self.data, best_by), Throughput()
        self.matching = [ValMatching(self.data)] if self.data.val_matching else []
        self.stop = StopOnSignal(folder)
        wanted = arguments.config.trainer.enable_progress_bar is not False
        terminal = wanted and sys.stdout.isatty()
        self.tensorboard = TensorBoardLogger(folder.path, name="tensorboard", version="")
        progress = (ProgressBar if terminal else ProgressLines)(self.data.total_steps)
        self.trainer = arguments.make_trainer(
            callbacks=[
                *self.matching,
                self.best,
                self.throughput,
                self.stop,
                ResumeState(settings, start, self.data),
                SampleAnswers(self.data),
                *([progress] if wanted else []),
                LongestBatchTrial(self.data.largest_micro_batch),
            ],
            default_root_dir=str(folder.path),
            enable_progress_bar=False,
            logger=[
                self.tensorboard,
                MetricsTable(folder.metrics, done=start.step),
            ],
            plugins=[AtomicCheckpointIO()],
        )

    def run(self, changes: list[str]) -> None:
        """Check the data and the plan, train, and write the results.

        Args:
            changes: What differs from the settings of the checkpoint, in lines to print.
        """
        with self.stop:
            if not self._prepare():
                return
            self._print_start(changes)
            if not self.start.path:
                if count := len(self.data.val_rows):
                    print_rank0(
                        tr("base   measuring its loss on {count} validation rows …", count=count)
                    )
                self.trainer.validate(self.model, self.data, verbose=False)
            self.trainer.fit(self.model, self.data, ckpt_path=self.start.path, weights_only=True)
            if self.best.validated < self.trainer.global_step:
                self.trainer.validate(self.model, self.data, verbose=False)
            if self.trainer.is_global_zero:
                write_results(self.arguments, self.folder, self.best, self.tensorboard)
                done = self.start.step
                print_result(self.arguments, self.folder, self.best, self.throughput, done)

    def _prepare(self) -> bool:
        """Set up data, plan and ranks; return False for a run that is complete already."""
        data, start, trainer = self.data, self.start, self.trainer
        print_rank0(tr("data   reading the rows of {source} …", source=data.source))
        data.setup()
        rows = rows_digest(data)
        # Checkpoints of this run hold the digests too.
        self.settings |= rows
        check_settings(start.settings, self.settings)
        settle_sharing(self.arguments)
        if start.path:
            data.plans.resume_from(start.step_map, start.step)
        for callback in self.matching:
            callback.keys()  # finds out before training whether there is anything to match
        complete = start.step and start.step >= data.total_steps() and self.folder.picture.is_file()
        if complete and self.in_place:
            _print_complete(self.folder, start)
            return False
        self.model.total_steps = data.total_steps()
        self.model.step_guard.locate_rows = data.step_locations
        self.findings = judge(self.arguments, forecast(self.arguments))
        refuse(self.findings, self.arguments.config.force)
        self.ranks.start_others(trainer)
        same = {
            tr("the checkpoint's step"): str(start.step),
            # Machines may differ in what they leave open.
            "trainer.precision": self.arguments.hardware.precision.value,
        }
        self.ranks.check_equal(rows | same)
        if trainer.is_global_zero:
            self.folder.prepare(resume=self.in_place)
            self.arguments.save(self.folder.config)
            if len(data.val_rows):
                self.folder.write_validation(data.held_out())
        return True

    def _print_start(self, changes: list[str]) -> None:
        print_rows_and_plan(self.arguments)
        for finding in self.findings:
            print_rank0(tr("check  {said}", said=finding.text))
        if self.start.path:
            print_rank0(
                tr("resume {path}, after step {step}", path=self.start.path, step=self.start.step)
            )
            step_change = describe_step_change(self.data.plans.step_map, self.start.step)
            for line in [*changes, *step_change]:
                print_rank0(f"       {line}")


def _print_complete(folder: RunFolder, start: ResumePoint) -> None:
    print_rank0(
        tr(
            "resume {path} is already complete: {step} optimizer steps",
            path=folder.path,
            step=start.step,
        )
    )
    print_rank0(tr("       to train longer, raise trainer.max_epochs, or use another --output_dir"))
