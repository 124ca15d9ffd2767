"""What a search takes from the settings of a run, and what it refuses."""

from pathlib import Path

from lit.messages import tr
from lit.searching.finals import Finals
from lit.searching.outcome.decision import too_few_rows
from lit.searching.planner import Planner
from lit.searching.schedule import EPOCHS, Schedule
from lit.searching.search import Searching
from lit.searching.space import Space, default_space
from lit.searching.space_file import read_space
from lit.searching.trials.ledger import Job, Ledger
from lit.searching.workbench import Workbench
from lit.settings.arguments import Arguments
from lora.config import ConfigError

REPORT_FRACTION = 0.5
"""The share of the held-out rows that choose nothing, unless the config says another."""


def prepare(arguments: Arguments) -> None:
    """Set what a search decides itself, and refuse what it cannot do.

    Raises:
        ConfigError: A setting belongs to a single run, or needs several processes.
    """
    config, trainer = arguments.config, arguments.config.trainer
    several = trainer.devices not in ("auto", 1, "1") or trainer.num_nodes != 1
    if several or trainer.strategy != "auto":
        raise ConfigError(
            tr(
                "lit.search trains on one device: remove trainer.devices, trainer.num_nodes and "
                "trainer.strategy, and start one process for each device with the same --storage"
            )
        )
    trainer.devices = 1
    if config.ckpt_path:
        raise ConfigError(
            tr("ckpt_path is for lit.fit: the same command of lit.search goes on where it ended")
        )
    if arguments.best_by() != "loss":
        raise ConfigError(tr("lit.search chooses by loss: set checkpoint.best_by to loss"))
    if not config.data.report_fraction:
        config.data.report_fraction = REPORT_FRACTION


def choose_space(path: Path | None, arguments: Arguments) -> Space:
    """Return what the search varies.

    Args:
        path: A YAML file; None for the default.
        arguments: The settings.

    Raises:
        ConfigError: The file cannot be used.
    """
    own, adapter = arguments.settings(), arguments.config.model.adapter
    if path is None:
        return default_space(own, adapter)
    return read_space(path, own, list(own), adapter)


def reason_not_to_choose(bench: Workbench) -> str:
    """Return why settings cannot be chosen with the rows that are held out, or an empty text.

    Raises:
        ConfigError: No rows are held out at all.
    """
    choose, report = len(bench.data.val_rows), len(bench.data.report_rows)
    if not choose:
        raise ConfigError(
            tr("no rows are held out, so there are none to choose by: add --data.val_fraction 0.2")
        )
    return too_few_rows(choose, report)


def assemble(
    bench: Workbench,
    ledger: Ledger,
    folder: Path,
    planner: Planner,
    trials: int | None,
    budget: float | None,
    started: float,
) -> Searching:
    """Make a search whose first trial has the config's own settings.

    Args:
        bench: Trains the trials.
        ledger: The trials of all processes.
        folder: The search's folder.
        planner: Suggests settings.
        trials: How many settings are tried, the config's own among them; None for a budget.
        budget: Seconds for all of it; None if trials are counted.
        started: When the command started, by ``time.monotonic``.
    """
    config, own = bench.arguments.config, dict(planner.space.own)
    if (config.trainer.max_epochs or 0) > 0:
        own[EPOCHS] = config.trainer.max_epochs
    searching: Searching
    finals = Finals(
        Job("own", own, int(config.seed_everything)),
        rank=lambda tries, most: searching.rank(tries, most),
        lost=lambda whole: searching.lost(whole),
    )
    schedule = Schedule(planner, trials, lambda: searching.left(), finals)
    searching = Searching(bench, ledger, schedule, folder, budget, started)
    return searching
