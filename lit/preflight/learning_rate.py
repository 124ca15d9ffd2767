"""Whether a run's learning rate lets an adapter learn."""

import math
from collections.abc import Iterator

from lit.messages import tr
from lit.preflight.finding import Finding
from lit.preflight.forecast import Forecast
from lit.settings.arguments import Arguments

MIN_MOVEMENT = 5e-3
"""Optimizer steps times learning rate that a run should have. Adam moves a parameter by about the
learning rate in each step, and B starts at zero: the product is about how far B can move."""
USUAL_LR = 2e-4
HIGH_LR = 10 * USUAL_LR


def check_lr(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    """Find a learning rate with which a run learns nothing, or diverges."""
    module, steps, epochs = arguments.model, forecast.steps, forecast.epochs
    if module.optimizer == "sgd" or steps < 1:
        return
    factor = MIN_MOVEMENT / (steps * module.lr * max(1.0, module.lora.loraplus_lr_ratio))
    if factor > 1:
        lr, more = _format_lr(module.lr), _format_lr(_round_up(module.lr * factor))
        text = (
            tr(
                "{steps} optimizer steps at model.lr {lr} rarely change a model's answers: add "
                "--model.lr {more} or --trainer.max_epochs {epochs}",
                steps=steps,
                lr=lr,
                more=more,
                epochs=math.ceil(epochs * factor),
            )
            if epochs
            else tr(
                "{steps} optimizer steps at model.lr {lr} rarely change a model's answers: add "
                "--model.lr {more}",
                steps=steps,
                lr=lr,
                more=more,
            )
        )
        yield Finding(text)
    if module.lr > HIGH_LR:
        yield Finding(
            tr(
                "model.lr is {lr}, {times:.0f} times the usual {usual}, and training "
                "may diverge: add --model.lr {usual}",
                lr=_format_lr(module.lr),
                times=module.lr / USUAL_LR,
                usual=_format_lr(USUAL_LR),
            )
        )


def _round_up(value: float) -> float:
    """Return the next value of …, 1e-4, 2e-4, 5e-4, 1e-3, …"""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 2, 5, 10) if n * power > 0.999 * value)


def _format_lr(value: float) -> str:
    """Return a learning rate in short form, such as 2e-4."""
    digits, _, power = f"{value:e}".partition("e")
    return f"{float(digits):g}e{int(power)}"
