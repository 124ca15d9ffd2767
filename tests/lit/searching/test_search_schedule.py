"""What a search does with its time: a simulated bench, and a clock that the test moves."""

import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from jsonargparse import Namespace

from lit.searching.finals import EPOCHS, Finals
from lit.searching.planner import Planner
from lit.searching.records import Point, Search, Trial
from lit.searching.schedule import Schedule, divide, divide_trials
from lit.searching.search import Searching
from lit.searching.space import Dimension, Space, default_space
from lit.searching.trial_settings import trial_settings
from lit.searching.trials.halving import VALIDATIONS
from lit.searching.trials.ledger import Job, Ledger
from lit.searching.trials.storage import open_storage
from lit.searching.trials.watch import TrialEnded, Watch
from lit.train.schedule import SCHEDULES, lr_factor
from lora.config import ConfigError

OWN = {
    "model.lr": 1e-3,
    "model.lora.r": 8,
    "model.lora.lora_alpha": 16.0,
    "model.lora.target_modules": "projections",
}
ROWS, STEPS, EPOCHS_OF_RUN = 12, 36, 4


class Bench:
    """Trains nothing: a step takes a second of a clock, and a validation two.

    Args:
        best_lr: The learning rate with the lowest loss.
        fails, diverges: Numbers of trials that do.
        pace: How many times longer everything takes when trials train than when it was timed.
        setup: What each trial takes before its first step, which was not timed.
    """

    steps, steps_of_epoch = STEPS, STEPS // EPOCHS_OF_RUN
    base_sums = ((20.0,) * ROWS, (20.0,) * ROWS)
    setup_seconds, val_seconds = 3.0, 2.0
    arguments = SimpleNamespace(
        config=SimpleNamespace(trainer=SimpleNamespace(enable_progress_bar=False))
    )
    data = SimpleNamespace(train_rows=range(36))

    def __init__(
        self,
        best_lr: float = 1e-2,
        fails: tuple[int, ...] = (),
        diverges: tuple[int, ...] = (),
        pace: float = 1.0,
        setup: float = 0.0,
    ) -> None:
        self.best_lr, self.fails, self.diverges, self.now = best_lr, fails, diverges, 0.0
        self.pace, self.setup = pace, setup
        self.trained: list[tuple[int, Job]] = []

    def labels(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (10,) * ROWS, (10,) * ROWS

    def measure_base(self, job: Job, watch: Watch) -> None:
        self.now += self.setup_seconds
        for step in range(1, STEPS):
            self.now += 1
            try:
                watch.on_step(step)
            except TrialEnded:
                return

    def train(self, number: int, job: Job, watch: Watch, folder: Path, callbacks: Any) -> Trial:
        began, state, reason = self.now, "finished", ""
        self.trained.append((number, job))
        self.now += self.setup * self.pace
        steps = int(STEPS * job.settings.get(EPOCHS, EPOCHS_OF_RUN) / EPOCHS_OF_RUN)
        every = STEPS // VALIDATIONS if job.kind == "try" else self.steps_of_epoch
        try:
            if number in self.fails:
                raise TrialEnded("failed", "out of memory")
            for step in range(1, steps + 1):
                self.now += self.pace
                watch.on_step(step)
                if step % every == 0:
                    self.now += self.val_seconds * self.pace
                    loss = 4.1 if number in self.diverges else self.loss(job, step)
                    watch.curve.append(Point(step, step / self.steps_of_epoch, loss))
                    watch.on_loss(watch.curve[-1])
        except TrialEnded as end:
            state, reason = end.state, str(end)
        curve = tuple(watch.curve)
        choose = None
        if curve and state != "failed":
            self.now += self.val_seconds * self.pace
            sums = np.random.default_rng(0).normal(0, 0.01, ROWS)
            choose = tuple(float(10 * min(p.loss for p in curve) + x) for x in sums)
        whole = job.kind != "try" and state == "finished"
        if whole:
            self.now += self.val_seconds * self.pace
        return Trial(
            *(number, job.settings, job.seed, state, reason, curve),  # type: ignore[arg-type]
            *(steps, 1000 * job.settings["model.lora.r"], self.now - began, whole),
            choose=choose,
            report=choose if whole else None,
        )

    def loss(self, job: Job, step: int) -> float:
        """A loss that is lowest at a learning rate, and after two epochs."""
        far = abs(math.log10(job.settings["model.lr"] / self.best_lr))
        return 1.0 + 0.2 * far + 0.3 * abs(step / self.steps_of_epoch - 2) + 0.001 * job.seed


def make(
    bench: Bench,
    folder: Path,
    budget: float | None,
    trials: int | None = None,
    space: Space | None = None,
) -> Searching:
    own = Job("own", OWN | {EPOCHS: EPOCHS_OF_RUN}, 42)
    ledger = Ledger(open_storage(None, folder), "s", str(folder))
    searching: Searching
    finals = Finals(
        own,
        rank=lambda tries, most: searching.rank(tries, most),
        lost=lambda whole: searching.lost(whole),
    )
    planner = Planner(space or default_space(OWN, None), 0)
    schedule = Schedule(planner, trials, lambda: searching.left(), finals)
    args = (bench, ledger, schedule, folder, budget, bench.now)
    searching = Searching(*args, clock=lambda: bench.now)  # type: ignore[arg-type]
    searching.measure()
    return searching


def run(searching: Searching) -> Search:
    found = searching.run()
    assert found is not None
    return found


WHOLE = 36 + 4 * 2 + 4


@pytest.mark.parametrize("runs", [1.3, 2.0, 2.6, 4.0, 6.0, 10.5, 22.0])
def test_a_budget_is_kept_to_within_one_validation(runs: float, tmp_path: Path) -> None:
    bench, budget = Bench(), runs * WHOLE
    search = run(make(bench, tmp_path, budget))
    # The measurement of a trial's best adapter takes as long as a validation.
    assert bench.now <= budget + 2 * bench.val_seconds
    assert search.budget_s == budget
    assert search.used_s == pytest.approx(bench.now)
    if runs > 2.6:
        assert bench.now > 0.6 * budget
        assert any(trial.full_schedule and trial.number for trial in search.trials)


@pytest.mark.parametrize("trials", [1, 2, 5, 9, 20])
def test_trials_are_counted_and_the_best_are_trained_again_with_a_second_seed(
    trials: int, tmp_path: Path
) -> None:
    bench = Bench()
    search = run(make(bench, tmp_path, None, trials))
    kinds = [job.kind for _, job in bench.trained]
    shares = divide_trials(trials)
    assert kinds == ["own", *["try"] * (trials - 1), *["final"] * shares.runs]
    finals = [job for _, job in bench.trained if job.kind == "final"]
    assert {job.seed for job in finals} <= {42, 43}
    whole = [trial for trial in search.trials if trial.full_schedule and trial.choose]
    seeds: dict[str, set[int]] = {}
    for trial in whole:
        seeds.setdefault(trial.key, set()).add(trial.seed)
    best = min(whole, key=lambda trial: sum(trial.choose or ()))
    assert seeds[best.key] == ({42, 43} if trials > 1 else {42})


def test_the_epochs_of_a_final_run_are_read_off_the_curve(tmp_path: Path) -> None:
    bench = Bench()
    run(make(bench, tmp_path, None, 8))
    finals = [job for _, job in bench.trained if job.kind == "final"]
    assert finals[0].settings[EPOCHS] == 2


def test_the_final_runs_have_the_best_settings(tmp_path: Path) -> None:
    bench = Bench(best_lr=5e-3)
    search = run(make(bench, tmp_path, None, 16))
    best = min(
        (x for x in search.trials if x.choose and not x.full_schedule),
        key=lambda trial: sum(trial.choose or ()),
    )
    final = next(job for _, job in bench.trained if job.kind == "final")
    assert final.settings["model.lr"] == best.settings["model.lr"]


def test_a_failed_trial_is_not_the_end(tmp_path: Path) -> None:
    bench = Bench(fails=(0, 2, 3))
    search = run(make(bench, tmp_path, None, 8))
    assert [trial.state for trial in search.trials[:4]].count("failed") == 3
    assert search.trials[2].reason == "out of memory"
    # The config's own settings failed: they are not tried with another seed.
    assert all(job.settings != search.trials[0].settings for _, job in bench.trained[1:])


def test_a_trial_whose_loss_is_far_above_the_base_has_diverged(tmp_path: Path) -> None:
    search = run(make(Bench(diverges=(2,)), tmp_path, None, 4))
    trial = search.trials[2]
    assert (trial.state, trial.choose, len(trial.curve)) == ("failed", None, 1)
    assert "diverged: the validation loss is 4.100, the base's is 2.000" in trial.reason


def test_a_budget_that_is_too_short_for_one_run_is_refused_with_what_is_needed(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"a run takes about .*--budget \dm or more"):
        make(Bench(), tmp_path, 0.3 * WHOLE)


def test_a_search_goes_on_where_another_process_ended(tmp_path: Path) -> None:
    whole, parts = Bench(), Bench()
    (tmp_path / "a").mkdir()
    expected = run(make(whole, tmp_path / "a", None, 6))
    for stop in (1, 4, 7, 99):
        searching = make(parts, tmp_path, None, 6)
        steps = searching.schedule.next

        def only(slots: Any, next_of=steps, stop: int = stop) -> Any:
            return next_of(slots) if len(slots) < stop else None

        searching.schedule.next = only  # type: ignore[method-assign]
        found = run(searching)
    assert [x.settings for x in found.trials] == [x.settings for x in expected.trials]
    assert [x.choose for x in found.trials] == [x.choose for x in expected.trials]
    assert len(parts.trained) == len(whole.trained)


def test_the_time_of_an_earlier_command_counts(tmp_path: Path) -> None:
    first, second = Bench(), Bench()
    run(make(first, tmp_path, 3.5 * WHOLE))
    search = run(make(second, tmp_path, 3.5 * WHOLE))
    assert second.trained == []
    assert len(search.trials) == len(first.trained)


@pytest.mark.parametrize("runs", [0.5, 1, 2.4, 2.5, 4.9, 5, 9, 10, 19, 20, 100])
def test_final_runs_leave_time_for_the_configs_own_and_for_tries(runs: float) -> None:
    shares = divide(runs)
    assert shares.runs <= max(0.0, runs - 1.5)


LINE = re.compile(
    r"^ +best \d\.\d{4} \(trial \d+\)(?:, (?P<left>\d+) (?:s|min) left)?"
    r"(?:, (?:about )?(?P<tries>\d+) more tr(?:y|ies))?(?:, (?P<runs>\d+) more whole runs?)?$",
    re.M,
)


def forecasts(said: str) -> list[tuple[int, int]]:
    """Return how many tries and whole runs were said to follow, first and after each trial."""
    first = re.search(r"about (\d+) tries, .* and (\d+) whole runs", " ".join(said.split()))
    assert first
    later = [(x["tries"] or 0, x["runs"] or 0) for x in LINE.finditer(said)]
    return [(int(tries), int(runs)) for tries, runs in [first.groups(), *later]]


def followed(bench: Bench) -> list[tuple[int, int]]:
    """Return how many tries and whole runs did follow, after trial 0 and after each other."""
    kinds = [job.kind for _, job in bench.trained]
    return [
        (kinds[number:].count("try"), kinds[number:].count("final"))
        for number in range(1, len(kinds) + 1)
    ]


@pytest.mark.parametrize(
    ("runs", "setup", "pace"),
    [(4.0, 0.0, 1.6), (7.0, 6.0, 1.0), (12.0, 0.0, 0.7), (12.0, 6.0, 1.6)],
)
def test_what_is_said_to_fit_after_a_trial_is_what_follows(
    runs: float, setup: float, pace: float, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bench = Bench(pace=pace, setup=setup)
    run(make(bench, tmp_path, runs * (WHOLE + setup)))
    said, true = forecasts(capsys.readouterr().out)[1:], followed(bench)
    assert len(said) == len(true), "after each trial"
    for (tries, finals), (tries_then, finals_then) in zip(said, true, strict=True):
        # Which tries go on is chance.
        assert abs(tries - tries_then) <= max(3, 0.4 * max(tries, tries_then)), (said, true)
        assert abs(finals - finals_then) <= 1
    assert said[-1] == (0, 0)


def test_trials_that_are_counted_are_said_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bench = Bench()
    run(make(bench, tmp_path, None, 9))
    said = forecasts(capsys.readouterr().out)
    assert said == [followed(bench)[0], *followed(bench)]


@pytest.mark.parametrize("trials", [None, 20])
def test_a_small_space_is_not_said_to_have_more_tries_than_settings(
    trials: int | None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    space = Space((Dimension("model.lora.r", (4, 8, 16)), Dimension("model.lr", (1e-3, 1e-2))), OWN)
    bench = Bench()
    run(make(bench, tmp_path, None if trials else 30 * WHOLE, trials, space))
    assert forecasts(capsys.readouterr().out)[0][0] == 5 == followed(bench)[0][0]


def test_a_search_that_goes_on_divides_its_budget_as_before(tmp_path: Path) -> None:
    budget, shares = 7.0 * WHOLE, []
    for stop in (1, 4, 99):
        searching = make(Bench(), tmp_path, budget)
        shares.append(searching.schedule.shares)
        next_of = searching.schedule.next
        searching.schedule.next = (  # type: ignore[method-assign]
            lambda slots, stop=stop, next_of=next_of: next_of(slots) if len(slots) < stop else None
        )
        run(searching)
    assert len(set(shares)) == 1
    assert shares[0].seeds == 2


@pytest.mark.parametrize("scheduler", SCHEDULES)
def test_a_try_moves_the_weights_as_far_as_a_whole_run_with_its_settings(scheduler: str) -> None:
    model = {"lr": 1e-3, "scheduler": scheduler, "seed": 0, "warmup": 0.1}
    given = Namespace(
        model=Namespace(**model),
        data=Namespace(val_every_n_steps=None),
        trainer=Namespace(val_check_interval=None, check_val_every_n_epoch=None),
        early_stopping=Namespace(patience=2),
    )
    sums = {}
    for kind in ("try", "final"):
        job = Job(kind, {"model.lr": 4e-3}, 7)  # type: ignore[arg-type]
        made = trial_settings(SimpleNamespace(config=given), job, 200).config  # type: ignore[arg-type]
        factors = [lr_factor(made.model.scheduler, 20, 200, step) for step in range(20, 200)]
        sums[kind] = made.model.lr * sum(factors)
    assert sums["try"] == pytest.approx(sums["final"], rel=0.02)
    assert given.model.lr == 1e-3
