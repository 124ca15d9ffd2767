"""The settings of a trial's training: those of the config, with what the trial changes."""

import copy

from lit.searching.trials.halving import VALIDATIONS
from lit.searching.trials.ledger import Job
from lit.settings.arguments import Arguments
from lit.train.schedule import mean_factor


def trial_settings(arguments: Arguments, job: Job, steps: int) -> Arguments:
    """Return the settings of a trial, before its objects are made.

    Args:
        arguments: Those of the config; they stay as they are.
        job: What the trial trains.
        steps: Optimizer steps of a run with the config's own settings.
    """
    made: Arguments = copy.copy(arguments)
    made.config = config = arguments.config.clone()
    for name, value in job.settings.items():
        config[name] = value
    config["model.seed"] = job.seed
    if job.kind == "try":
        # The rates of schedules that were cut at the same step have fallen by different shares.
        # A constant rate that is the schedule's mean moves the weights as far as the schedule:
        # at the highest rate, the best rate of tries would be too low for whole runs.
        config["model.lr"] *= mean_factor(config["model.scheduler"])
        config["model.scheduler"] = "constant"
        config["data.val_every_n_steps"] = max(1, steps // VALIDATIONS)
        # One interval of validation, and nothing else that ends a trial.
        config["trainer.val_check_interval"] = None
        config["trainer.check_val_every_n_epoch"] = 1
        config["early_stopping.patience"] = None
    return made
