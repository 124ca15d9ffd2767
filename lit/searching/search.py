"""A search: trials one after another, until the budget ends or nothing is left to try."""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lit.messages import tr, tr_n
from lit.run.console import print_rank0
from lit.searching.outcome.ties import candidates, finalists
from lit.searching.progress import Progress, duration
from lit.searching.records import Search, Trial
from lit.searching.results import trial_folder
from lit.searching.schedule import LEAST_RUNS, Schedule
from lit.searching.trials.costs import Costs
from lit.searching.trials.ledger import Job, Ledger, LostTrialError, Slot
from lit.searching.trials.limits import Limits
from lit.searching.trials.watch import Signals, StoppedSearchError, TrialEnded, Watch
from lit.searching.workbench import Workbench
from lora.config import ConfigError

TIMED_STEPS = 4
SURELY = 3
"""Times what a second seed changed, which settings lose by that get none."""
"""Optimizer steps that are timed; the first of them is slow and does not count."""


class Searching:
    """The objects of a search, and the order in which they work.

    Args:
        bench: Trains the trials.
        ledger: The trials of all processes.
        schedule: Decides which comes next.
        folder: The search's folder.
        budget: Seconds for all of it; None if trials are counted.
        started: When the command started, by ``clock``.
        clock: Returns the time in seconds.
    """

    def __init__(
        self,
        bench: Workbench,
        ledger: Ledger,
        schedule: Schedule,
        folder: Path,
        budget: float | None,
        started: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bench, self.ledger, self.schedule, self.folder = bench, ledger, schedule, folder
        self.budget, self.clock = budget, clock
        # What earlier commands with this folder have used counts.
        self.started = started - ledger.seconds()
        self.signals = Signals()
        wanted = bench.arguments.config.trainer.enable_progress_bar is not False
        self.progress = Progress(self.left, wanted and sys.stdout.isatty())

    def used(self) -> float:
        """Return the seconds of the budget that are used."""
        return self.clock() - self.started

    def left(self) -> float:
        """Return the seconds of the budget that are left; infinite if trials are counted."""
        return math.inf if self.budget is None else self.budget - self.used()

    def measure(self) -> None:
        """Load the base, measure it, time a few steps, and say what fits into the budget."""
        times: list[float] = []

        def on_step(step: int) -> None:
            times.append(self.clock())
            if step >= TIMED_STEPS:
                raise TrialEnded("stopped early", "")

        print_rank0(tr("base   measuring its loss on the rows that choose and report …"))
        with self.signals:
            self.bench.measure_base(self.schedule.own, Watch(self.signals, on_step))
        self.signals.training = False
        step = (times[-1] - times[0]) / max(1, len(times) - 1)
        bench = self.bench
        validations = round(bench.steps / bench.steps_of_epoch) + 2
        start = max(0.0, bench.setup_seconds - bench.val_seconds) + step
        costs = Costs(start, step, bench.val_seconds, bench.steps, validations)
        self._plan(costs)
        run, slots = costs.run, self.ledger.slots()
        if run > self.left() and not slots:
            raise ConfigError(
                tr(
                    "--budget is too short: a run takes about {run}. Give --budget {least}m or "
                    "more",
                    run=duration(run),
                    least=math.ceil(LEAST_RUNS * run / 60),
                )
            )
        self.progress.plan(self.schedule, self.schedule.forecast(slots))

    def _plan(self, costs: Costs) -> None:
        self.schedule.plan(costs, self.left() + self.ledger.seconds())

    def run(self) -> Search | None:
        """Run trials until nothing is left to do, the budget ends, or a signal comes.

        Returns:
            All that is known; None if the config's own settings have no result.

        Raises:
            StoppedSearchError: A signal came before anything was known.
        """
        with self.signals:
            try:
                while (found := self.schedule.next(slots := self.ledger.slots())) is not None:
                    self._run_trial(*found, slots)
            except StoppedSearchError:
                self.ledger.release()
        self.signals.training = False
        return self.result()

    def rank(self, tries: list[Trial], most: int) -> list[Trial]:
        """Return the tries that deserve a whole run, the best first."""
        return finalists(self._record(tuple(tries), -1), most)

    def lost(self, whole: list[Trial]) -> list[dict[str, Any]]:
        """Return the settings that lost for sure: a second seed of them is not worth its time.

        They are worse than the best by more than chance of rows, and by ``SURELY`` times what
        another seed changed. Until some settings ran twice, none is.
        """
        found = candidates(self._record(tuple(whole), -1), whole)
        changes = [max(one.losses) - min(one.losses) for one in found if len(one.runs) > 1]
        if not changes:
            return []
        least = SURELY * max(changes)
        return [one.settings for one in found if not one.tied_by_rows and one.to_best.value > least]

    def result(self) -> Search | None:
        """Return all that is known now."""
        slots = self.ledger.slots()
        trials = tuple(slot.trial for slot in slots if slot.trial)
        own = next((slot.number for slot in slots if slot.job.kind == "own" and slot.trial), None)
        if own is None:
            return None
        notes = []
        if running := sum(slot.running for slot in slots):
            notes.append(
                tr_n(
                    "{n} trial is still running in another process.",
                    "{n} trials are still running in other processes.",
                    running,
                )
            )
        if self.signals.number is not None:
            notes.append(tr("A signal ended the search before its time."))
        return self._record(trials, own, tuple(notes))

    def _record(self, trials: tuple[Trial, ...], own: int, notes: tuple[str, ...] = ()) -> Search:
        choose_labels, report_labels = self.bench.labels()
        return Search(
            trials=trials,
            own=own,
            choose_labels=choose_labels,
            report_labels=report_labels,
            base_choose=self.bench.base_sums[0],
            base_report=self.bench.base_sums[1],
            rows=(len(self.bench.data.train_rows), len(choose_labels), len(report_labels)),
            budget_s=self.budget,
            used_s=self.used(),
            notes=notes,
        )

    def kept(self, number: int) -> tuple[int, Job]:
        """Return the trial of the same settings with the config's seed, and what it trains."""
        jobs = {slot.number: slot.job for slot in self.ledger.slots()}
        job, seed = jobs[number], self.schedule.own.seed
        return next(
            (
                (n, other)
                for n, other in jobs.items()
                if other.settings == job.settings and other.seed == seed
            ),
            (number, job),
        )

    def _run_trial(self, number: int, job: Job, slots: list[Slot]) -> None:
        if not self.ledger.claim(number, job):
            return
        others = [x.losses for x in slots if x.job.kind == "try" and x.number != number]
        base = sum(self.bench.base_sums[0]) / max(1, sum(self.bench.labels()[0]))
        seconds = self.schedule.deadline(job)
        limits = Limits(self.ledger, job, others, base, seconds, self.clock)
        self.progress.start(number, job, slots, self.schedule.forecast(self.ledger.slots()))
        keep = job.kind != "try" and job.seed == self.schedule.own.seed
        folder = trial_folder(self.folder, number) if keep else Path()
        watch = Watch(self.signals, limits.on_step, limits.on_loss)
        try:
            trial = self.bench.train(
                number, job, watch, folder, callbacks=lambda made: self.progress.bars(number, made)
            )
            self.ledger.finish(trial)
        except LostTrialError:
            print_rank0(
                tr(
                    "trial {number}  was taken by another process: its result is not used",
                    number=number,
                )
            )
            return
        finally:
            self.signals.training = False
        costs, slots = self.schedule.costs, self.ledger.slots()
        costs.learn(trial, limits.start, limits.steps)
        if job.kind != "final":
            self._plan(costs)
        self.progress.end(trial, self.schedule.forecast(slots))
        self.signals.check()
