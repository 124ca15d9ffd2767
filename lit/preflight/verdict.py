"""The rules that find problems of a run before training.

A new rule is a function, and its line in RULES.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from lit.device.precision import slow_precision
from lit.messages import tr
from lit.preflight.finding import Finding
from lit.preflight.forecast import Forecast
from lit.preflight.learning_rate import check_lr
from lit.preflight.suitability import check_answers, check_lengths, check_template, check_vocabulary
from lit.settings.arguments import Arguments
from lora.config import ConfigError
from lora.storage.adapter import read_config
from lora.storage.peft_format import printable

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
        raise ConfigError("\n".join([*fatal, tr("add --force true to run anyway")]))


def _check_steps(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    trainer, steps, warmup = arguments.trainer, forecast.steps, forecast.warmup
    if steps < 1:
        yield Finding(
            tr(
                "trainer.max_epochs is {epochs} and trainer.max_steps is {steps}, so the run has "
                "no end: add --trainer.max_epochs 3",
                epochs=trainer.max_epochs,
                steps=trainer.max_steps,
            )
            if steps < 0
            else tr(
                "trainer.max_epochs is {epochs} and trainer.max_steps is {steps}, so the run has "
                "no optimizer step: add --trainer.max_epochs 3",
                epochs=trainer.max_epochs,
                steps=trainer.max_steps,
            ),
            fatal=True,
        )
    elif warmup >= steps:
        yield Finding(
            tr(
                "the warm-up has {warmup} steps, and the whole run has {steps}: add "
                "--model.warmup 0.03, or raise trainer.max_epochs",
                warmup=warmup,
                steps=steps,
            ),
            fatal=True,
        )
    epochs, most = trainer.min_epochs or 0, trainer.max_epochs or -1
    if (trainer.min_steps or 0) > steps >= 1 or epochs > most >= 0:
        yield Finding(
            tr(
                "trainer.min_steps is {min_steps} and trainer.min_epochs is {min_epochs}, but "
                "the run ends after {steps} steps: raise trainer.max_epochs",
                min_steps=trainer.min_steps,
                min_epochs=trainer.min_epochs,
                steps=steps,
            ),
            fatal=True,
        )
    if arguments.config.trainer.max_time is not None:
        yield Finding(
            tr(
                "trainer.max_time may end the run before the last of its {steps} optimizer "
                "steps; the learning rate is planned for all of them",
                steps=steps,
            )
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
            tr(
                "trainer.val_check_interval is {every}, but an epoch has {micro_steps} "
                "micro-batches: add --trainer.val_check_interval {micro_steps}, or "
                "--trainer.check_val_every_n_epoch null to count across epochs",
                every=every,
                micro_steps=micro_steps,
            ),
            fatal=True,
        )
    steps, asked = forecast.steps, data.val_every_n_steps
    if rows and asked is not None and 1 <= steps < asked:
        yield Finding(
            tr(
                "data.val_every_n_steps is {asked}, but the run has {steps} optimizer steps, so "
                "it validates once, after the last: add --data.val_every_n_steps {quarter}",
                asked=asked,
                steps=steps,
                quarter=max(1, steps // 4),
            )
        )
    if not rows:
        yield Finding(
            tr(
                "0 rows validate, so nothing shows whether the adapter helps: add "
                "--data.val_fraction 0.1"
            )
        )
    elif rows < FEW_VALIDATION_ROWS:
        yield Finding(
            tr(
                "{rows} rows validate, too few for a reliable loss: raise data.val_fraction, or "
                "add --data.val_path FILE; use {enough} rows or more",
                rows=rows,
                enough=FEW_VALIDATION_ROWS,
            )
        )


def _check_adapter(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    module, data = arguments.model, arguments.datamodule
    if not module.adapter:
        return
    template = Path(module.adapter) / "chat_template.jinja"
    if template.is_file() and template.read_text("utf-8-sig") != data.tokenizer.chat_template:
        yield Finding(
            tr(
                "data.template is {template}, and the adapter {adapter} was trained with "
                "another one: leave data.template out, or give {own}",
                template=data.template,
                adapter=module.adapter,
                own=template,
            )
        )
    named = read_config(module.adapter).get("base_model_name_or_path")
    if named is not None and module.base != named:
        yield Finding(
            tr(
                "model.base is {base}, and the adapter {adapter} was trained on {named}: leave "
                "model.base out, unless both are the same model",
                base=module.base,
                adapter=module.adapter,
                named=printable(str(named), 200),
            )
        )


def _check_precision(arguments: Arguments, forecast: Forecast) -> Iterator[Finding]:
    hardware = arguments.hardware
    if reason := slow_precision(hardware.precision.value, hardware.device):
        yield Finding(
            tr(
                "trainer.precision is {precision}, and {reason}",
                precision=hardware.precision.value,
                reason=reason,
            )
        )


RULES: tuple[Callable[[Arguments, Forecast], Iterator[Finding]], ...] = (
    _check_steps,
    _check_validation,
    _check_adapter,
    check_lr,
    _check_precision,
    check_vocabulary,
    check_lengths,
    check_template,
    check_answers,
)
