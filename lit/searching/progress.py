"""What a search prints: what fits into its time, each trial, the best so far, what is left."""

import math
from collections.abc import Callable, Sequence

from lightning.pytorch.callbacks import Callback

from lit.fitting.progress_bar import ProgressBar
from lit.messages import tr, tr_n
from lit.run.console import print_rank0
from lit.searching.records import Trial
from lit.searching.schedule import LEAST_RUNS, Forecast, Schedule
from lit.searching.space import Settings
from lit.searching.trials.ledger import Job, Slot
from lit.settings.arguments import Arguments


class Progress:
    """Prints lines for each trial; on a terminal its steps have a bar too.

    Args:
        left: Returns the seconds that are left; infinite if trials are counted.
        bar: Whether to draw bars.
    """

    def __init__(self, left: Callable[[], float], bar: bool) -> None:
        self.left, self.bar = left, bar
        self.best: tuple[float, int] | None = None
        self.rest: list[str] = []
        """What is still to come."""

    def bars(self, number: int, made: Arguments) -> list[Callback]:
        """Return the bar of a trial's steps, where bars are drawn."""
        name = tr("trial {number} step", number=number)
        if not self.bar:
            return []
        return [ProgressBar(made.datamodule.total_steps, name, self.standing)]

    def standing(self) -> list[str]:
        """Return the best so far, and what is left of the budget, or of the trials."""
        parts = []
        if self.best:
            loss, number = self.best
            parts.append(tr("best {loss:.4f} (trial {number})", loss=loss, number=number))
        left = self.left()
        if math.isinf(left):
            return [*parts, *self.rest]
        return [*parts, tr("{left} left", left=duration(max(0.0, left)))]

    def start(self, number: int, job: Job, slots: Sequence[Slot], forecast: Forecast) -> None:
        """Tell which trial starts.

        Args:
            number: Its number.
            job: What it trains.
            slots: The trials so far.
            forecast: What follows after it.
        """
        self.rest = self._rest(forecast)
        known = [
            (min(x.losses), x.number) for x in slots if x.losses and x.trial and x.trial.choose
        ]
        self.best = min(known, default=None)
        text = {
            "own": tr("trial {number}  the config's own settings: {settings}"),
            "try": tr("trial {number}  a try: {settings}"),
            "final": tr("trial {number}  the whole schedule, seed {seed}: {settings}"),
        }[job.kind]
        settings = describe(job.settings)
        print_rank0(text.format(number=number, settings=settings, seed=job.seed))

    def end(self, trial: Trial, forecast: Forecast) -> None:
        """Tell how a trial ended, the best so far, what is left, and what still fits into it."""
        loss = min((point.loss for point in trial.curve), default=math.nan)
        if trial.choose and loss < (self.best or (math.inf, 0))[0]:
            self.best = loss, trial.number
        text = {
            "finished": tr("         loss {loss:.4f}"),
            "stopped early": tr("         loss {loss:.4f}; stopped early: {reason}")
            if trial.curve
            else tr("         stopped before its first validation: {reason}"),
            "failed": tr("         failed: {reason}"),
        }[trial.state]
        print_rank0(text.format(loss=loss, reason=trial.reason))
        self.rest, counted = self._rest(forecast), math.isinf(self.left())
        if parts := self.standing() + ([] if counted else self.rest):
            print_rank0(f"         {', '.join(parts)}")

    def _rest(self, forecast: Forecast) -> list[str]:
        parts = []
        if n := forecast.tries:
            about = tr_n("about {n} more try", "about {n} more tries", n)
            exact = tr_n("{n} more try", "{n} more tries", n)
            parts.append(exact if math.isinf(self.left()) else about)
        if n := forecast.runs:
            parts.append(tr_n("{n} more whole run", "{n} more whole runs", n))
        return parts

    def plan(self, schedule: Schedule, forecast: Forecast) -> None:
        """Tell what a run takes, and what fits into the time.

        Args:
            schedule: After its ``plan``.
            forecast: What follows after the config's own settings.
        """
        costs, counted = schedule.costs, schedule.trials is not None
        print_rank0(
            tr(
                "time   a step takes {step:.2f} s, a whole run of {steps} steps about {run}",
                step=costs.step,
                steps=costs.steps,
                run=duration(costs.run),
            )
        )
        if not schedule.shares.finals:
            print_rank0(tr("fits   one run with the config's own settings, and nothing else"))
            if not counted:
                least = math.ceil(LEAST_RUNS * costs.run / 60)
                print_rank0(tr("       to compare settings, give --budget {n}m or more", n=least))
            return
        print_rank0(
            tr(
                "fits   the config's own settings, about {tries} tries, most of which stop early, "
                "and {runs} whole runs to compare the best with the config's own",
                tries=forecast.tries,
                runs=forecast.runs,
            )
        )
        if counted:
            total = duration(costs.run + forecast.seconds)
            print_rank0(tr("       about {total} in all", total=total))
        else:
            print_rank0(tr("       after each trial, what still fits is computed again"))


def describe(settings: Settings) -> str:
    """Return the settings of a trial in one line."""
    shown = {name.rpartition(".")[2]: value for name, value in settings.items()}
    return "  ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in shown.items()
    )


def duration(seconds: float) -> str:
    """Return a duration in hours, in minutes, or in seconds."""
    if seconds < 60:
        return tr("{n:.0f} s", n=seconds)
    if seconds < 5400:
        return tr("{n:.0f} min", n=seconds / 60)
    return tr("{n:.1f} h", n=seconds / 3600)
