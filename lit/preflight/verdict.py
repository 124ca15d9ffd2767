"""The rules that find problems of a run before training.

A new rule is a function, and its line in RULES.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from lit.device.precision import slow_precision
from lit.preflight.finding import Finding
from lit.preflight.forecast import Forecast
from lit.preflight.suitability import check_answers, check_lengths, check_template, check_vocabulary
from lit.settings.arguments import Arguments
from lora.config import ConfigError
from lora.storage.adapter import read_config
from lora.storage.peft_format import printable

MIN_MOVEMENT = 5e-3
"""Optimizer steps times learning rate that a run should have. Adam moves a parameter by about the
learning rate in each step, and B starts at zero: the product is about how far B can move."""
USUAL_LR = 2e-4
HIGH_LR = 10 * USUAL_LR
FEW_VALIDATION_ROWS = 20


def judge(arguments: Arguments, forecast: Forecast) -> list[Finding]:
    """Return the findings of all rules, fatal ones first.

    Args:
        arguments: Started, with the data set up.
        forecast: The forecast of the same run.
    """
    findings = [finding for rule in RULES for finding in rule(arguments, forecast)]
    return sorted(findings, key=lambda finding: not finding.fatal)


def refuse(findings: list[Finding], force: bool) -> None:
    """Stop a run that has a fatal finding.

    Args:
        findings: The findings of ``judge``.
        force: Whether the user asked to run anyway.

    Raises:
        ConfigError: A finding is fatal, and ``force`` is False.
    """
    fatal = [finding.text for finding in findings if finding.fatal]
    if fatal and not force:
        raise ConfigError("\n".join([*fatal, "add --force true to run anyway"]))


def _check_steps(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    trainer, steps, warmup = arguments.trainer, forecast.steps, forecast.warmup
    if steps < 1:
        yield Finding(
            f"trainer.max_epochs is {trainer.max_epochs} and trainer.max_steps is "
            f"{trainer.max_steps}, so the run has {'no end' if steps < 0 else 'no optimizer step'}"
            ": add --trainer.max_epochs 3",
            fatal=True,
        )
    elif warmup >= steps:
        yield Finding(
            f"the warm-up has {warmup} steps, and the whole run has {steps}: add --model.warmup "
            "0.03, or raise trainer.max_epochs",
            fatal=True,
        )
    epochs, most = trainer.min_epochs or 0, trainer.max_epochs or -1
    if (trainer.min_steps or 0) > steps >= 1 or epochs > most >= 0:
        yield Finding(
            f"trainer.min_steps is {trainer.min_steps} and trainer.min_epochs is "
            f"{trainer.min_epochs}, but the run ends after {steps} steps: raise trainer.max_epochs",
            fatal=True,
        )
    if arguments.config.trainer.max_time is not None:
        yield Finding(
            f"trainer.max_time may end the run before the last of its {steps} optimizer steps; the "
            "learning rate is planned for all of them"
        )


def _check_validation(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    data, trainer = arguments.datamodule, arguments.trainer
    rows = len(data.val_rows)
    # With an interval in time, Lightning does not set the attribute.
    every = getattr(trainer, "val_check_interval", 1.0)
    # A run that resumes with another step size first finishes an epoch that is only partly left.
    next_epoch = data.plans.step_map.segments[-1].epoch
    micro_steps = min(forecast.first.micro_steps, data.plans.epoch(next_epoch).micro_steps)
    if rows and isinstance(every, int) and trainer.check_val_every_n_epoch and every > micro_steps:
        yield Finding(
            f"trainer.val_check_interval is {every}, but an epoch has {micro_steps} micro-batches: "
            f"add --trainer.val_check_interval {micro_steps}, or "
            "--trainer.check_val_every_n_epoch null to count across epochs",
            fatal=True,
        )
    steps, asked = forecast.steps, data.val_every_n_steps
    if rows and asked is not None and 1 <= steps < asked:
        yield Finding(
            f"data.val_every_n_steps is {asked}, but the run has {steps} optimizer steps, so it "
            f"validates once, after the last: add --data.val_every_n_steps {max(1, steps // 4)}"
        )
    if not rows:
        yield Finding(
            "0 rows validate, so nothing shows whether the adapter helps: "
            "add --data.val_fraction 0.1"
        )
    elif rows < FEW_VALIDATION_ROWS:
        yield Finding(
            f"{rows} rows validate, too few for a reliable loss: raise data.val_fraction, or add "
            f"--data.val_path FILE; use {FEW_VALIDATION_ROWS} rows or more"
        )


def _check_adapter(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    module, data = arguments.model, arguments.datamodule
    if not module.adapter:
        return
    template = Path(module.adapter) / "chat_template.jinja"
    if template.is_file() and template.read_text("utf-8-sig") != data.tokenizer.chat_template:
        yield Finding(
            f"data.template is {data.template}, and the adapter {module.adapter} was trained with "
            f"another one: leave data.template out, or give {template}"
        )
    named = read_config(module.adapter).get("base_model_name_or_path")
    if named is not None and module.base != named:
        yield Finding(
            f"model.base is {module.base}, and the adapter {module.adapter} was trained on "
            f"{printable(str(named), 200)}: leave model.base out, unless both are the same model"
        )


def _check_lr(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    module, steps, epochs = arguments.model, forecast.steps, forecast.epochs
    if module.optimizer == "sgd" or steps < 1:
        return
    factor = MIN_MOVEMENT / (steps * module.lr * max(1.0, module.lora.loraplus_lr_ratio))
    if factor > 1:
        longer = f" or --trainer.max_epochs {math.ceil(epochs * factor)}" if epochs else ""
        yield Finding(
            f"{steps} optimizer steps at model.lr {_format_lr(module.lr)} rarely change a model's "
            f"answers: add --model.lr {_format_lr(_round_up(module.lr * factor))}{longer}"
        )
    if module.lr > HIGH_LR:
        yield Finding(
            f"model.lr is {_format_lr(module.lr)}, {module.lr / USUAL_LR:.0f} times the usual "
            f"{_format_lr(USUAL_LR)}, and training may diverge: "
            f"add --model.lr {_format_lr(USUAL_LR)}"
        )


def _check_precision(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    hardware = arguments.hardware
    if reason := slow_precision(hardware.precision.value, hardware.device):
        yield Finding(f"trainer.precision is {hardware.precision.value}, and {reason}")


def _round_up(value: float) -> float:
    """Return the next value of …, 1e-4, 2e-4, 5e-4, 1e-3, …"""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 5, 10) if n * power > 0.999 * value)


def _format_lr(value: float) -> str:
    """Return a learning rate in short form, such as 2e-4."""
    digits, _, power = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(power)}"


RULES: tuple[Callable[[Arguments, Forecast], Iterator[Finding]], ...] = (
    _check_steps,
    _check_validation,
    _check_adapter,
    _check_lr,
    _check_precision,
    check_vocabulary,
    check_lengths,
    check_template,
    check_answers,
)
