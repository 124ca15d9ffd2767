"""Whether a run can work, and whether it is likely to teach anything: each reason in a sentence.

A new reason is a function, and its line in RULES.
"""

import math
from collections.abc import Callable, Iterator

from lit.preflight.finding import Finding
from lit.preflight.forecast import Forecast
from lit.preflight.suitability import answers, lengths, template
from lit.settings.arguments import Arguments
from lora.config import ConfigError

REACH = 5e-3
"""Optimizer steps times learning rate that a run should have. Adam moves a number by about the
learning rate in a step, and B begins at zero: this is about how far it can come."""
USUAL_LR = 2e-4
HIGH_LR = 10 * USUAL_LR
FEW_VALIDATION_ROWS = 10


def judge(arguments: Arguments, forecast: Forecast) -> list[Finding]:
    """Give every reason against a run, those it cannot work for first.

    Args:
        arguments: Started, with the data set up.
        forecast: Of the same run.
    """
    reasons = [reason for rule in RULES for reason in rule(arguments, forecast)]
    return sorted(reasons, key=lambda reason: not reason.fatal)


def refuse(reasons: list[Finding], force: bool) -> None:
    """Stop before a run that cannot work, unless it is wanted all the same.

    Raises:
        ConfigError: It cannot work.
    """
    fatal = [reason.text for reason in reasons if reason.fatal]
    if fatal and not force:
        raise ConfigError("\n".join([*fatal, "--force true goes on all the same"]))


def _length(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    steps, warmup = forecast.steps, forecast.warmup
    if steps < 1:
        yield Finding(
            f"the run has {'no end' if steps < 0 else 'no optimizer step'}: set trainer.max_epochs "
            "or trainer.max_steps",
            fatal=True,
        )
    elif warmup >= steps:
        yield Finding(
            f"the warm-up of {warmup} steps is not shorter than the run of {steps}: "
            "lower model.warmup, or train for more epochs",
            fatal=True,
        )


def _validation(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    trainer, rows = arguments.trainer, len(arguments.datamodule.val_rows)
    data, every = arguments.datamodule, trainer.val_check_interval
    # Where a run goes on with steps of another size, only the rest of an epoch is left at first.
    micro_steps = min(
        forecast.first.micro_steps, data.epoch(data.step_map.segments[-1].epoch).micro_steps
    )
    if rows and isinstance(every, int) and trainer.check_val_every_n_epoch and every > micro_steps:
        yield Finding(
            f"trainer.val_check_interval is {every}, and an epoch has {micro_steps} micro-batches: "
            "lower it, or count over the whole run by trainer.check_val_every_n_epoch null",
            fatal=True,
        )
    if not rows:
        yield Finding(
            "no rows validate, so nothing tells whether the adapter helps: set data.val_fraction"
        )
    elif rows < FEW_VALIDATION_ROWS:
        yield Finding(
            f"{rows} rows validate: a loss over so few says little; raise data.val_fraction, or "
            "give data.val_path"
        )


def _precision(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    asked = str(arguments.config.trainer.precision)
    if asked.startswith("16") and arguments.trainer.precision != "16-mixed":
        # Lightning goes over to bf16-mixed with no more than a warning.
        yield Finding(
            f"trainer.precision is {asked}, which needs a GPU; on this CPU use 32-true", fatal=True
        )


def _rate(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    module, steps, epochs = arguments.model, forecast.steps, forecast.epochs
    if module.optimizer == "sgd" or steps < 1:
        return
    short = REACH / (steps * module.lr * max(1.0, module.lora.loraplus_lr_ratio))
    if short > 1:
        longer = f" or trainer.max_epochs to {math.ceil(epochs * short)}" if epochs else ""
        yield Finding(
            f"{steps} optimizer steps at lr {_short(module.lr)} rarely change answers: raise "
            f"model.lr to {_short(_round_up(module.lr * short))}{longer}"
        )
    if module.lr > HIGH_LR:
        yield Finding(
            f"model.lr is {_short(module.lr)}, {module.lr / USUAL_LR:.0f} times the usual "
            f"{_short(USUAL_LR)}: training may diverge"
        )


def _round_up(value: float) -> float:
    """The next of …, 1e-4, 2e-4, 5e-4, 1e-3, …"""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 5, 10) if n * power > 0.999 * value)


def _short(value: float) -> str:
    """A learning rate as people write it: 2e-4."""
    digits, _, power = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


RULES: tuple[Callable[[Arguments, Forecast], Iterator[Finding]], ...] = (
    _length,
    _precision,
    _validation,
    _rate,
    lengths,
    template,
    answers,
)
