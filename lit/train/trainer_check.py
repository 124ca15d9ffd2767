"""The arguments of a Trainer that a plan cannot follow: refused before training."""

import math
from collections.abc import Iterator

import lightning as L
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)

from lit.messages import tr, tr_mark
from lit.run.lightning_internals import splits_batches_over_ranks
from lora.config import ConfigError

REFUSED_CALLBACKS = {
    GradientAccumulationScheduler: tr_mark(
        "use trainer.accumulate_grad_batches, one value for the run"
    ),
    BatchSizeFinder: tr_mark("python -m lit.check estimates the memory that data.batch_size needs"),
    LearningRateFinder: tr_mark("set model.lr"),
    StochasticWeightAveraging: tr_mark("the saved adapter is the best of the run, not an average"),
    WeightAveraging: tr_mark("the saved adapter is the best of the run, not an average"),
    ModelPruning: tr_mark("lower model.lora.r for a smaller adapter"),
    BaseFinetuning: tr_mark("model.lora.target_modules chooses what trains"),
}
"""Lightning's callbacks that change the plan or the weights, and what to do without each."""


def check_trainer(trainer: L.Trainer, val_every_n_steps: int | None = None) -> None:
    """Refuse a trainer that would compute other steps than those of the plan.

    Args:
        trainer: The trainer.
        val_every_n_steps: Optimizer steps between validations, if the data module sets them.

    Raises:
        ConfigError: It has such arguments; the message has a line for each.
    """
    problems = [*_limit_problems(trainer), *_loop_problems(trainer)]
    # With an interval in time, Lightning does not set the attribute.
    interval = getattr(trainer, "val_check_interval", "a time")
    epochs = trainer.check_val_every_n_epoch
    problems += interval_problems(val_every_n_steps, None if interval == 1.0 else interval, epochs)
    if problems:
        raise ConfigError("\n".join(problems))


def interval_problems(every: int | None, interval: object, epochs: int | None) -> Iterator[str]:
    """Yield what is wrong with ``data.val_every_n_steps``: its value, or a second interval.

    Args:
        every: Optimizer steps between validations; None for Lightning's own intervals.
        interval: ``trainer.val_check_interval``; None if it is not given.
        epochs: ``trainer.check_val_every_n_epoch``.
    """
    if every is None:
        return
    if every < 1:
        yield tr("data.val_every_n_steps is {every}: choose 1 or more, or null", every=every)
    for name, value, default in (
        ("val_check_interval", interval, None),
        ("check_val_every_n_epoch", epochs, 1),
    ):
        if value != default:
            yield (
                tr(
                    "data.val_every_n_steps is {every} and trainer.{name} is {value}, two "
                    "intervals of validation: remove one of them, or add --trainer.{name} "
                    "{usual}",
                    every=every,
                    name=name,
                    value="null" if value is None else value,
                    usual="null" if default is None else default,
                )
            )


def micro_batch_limit(trainer: L.Trainer) -> int | None:
    """Return the most micro-batches of an epoch, over all ranks; None for no limit."""
    limit = trainer.limit_train_batches
    # 1 is one micro-batch, and 1.0 is all of them.
    return limit * trainer.world_size if isinstance(limit, int) else None


def _limit_problems(trainer: L.Trainer) -> Iterator[str]:
    # mypy does not know the attributes that Lightning sets in another file.
    values = vars(trainer)
    if steps := int(values["fast_dev_run"]):
        yield (
            tr(
                "trainer.fast_dev_run is set, and it writes no checkpoint and no log: for a "
                "trial, remove it and add --trainer.max_steps {steps}",
                steps=steps,
            )
        )
        return  # it sets the limits below too
    if share := values["overfit_batches"]:
        yield (
            tr(
                "trainer.overfit_batches is {share}: remove it, give the rows to overfit as "
                "data.path, and add --data.val_fraction 0",
                share=share,
            )
        )
        return
    limit = trainer.limit_train_batches
    if isinstance(limit, float) and limit != 1:
        yield (
            tr(
                "trainer.limit_train_batches is {limit}, a share: give the number of "
                "micro-batches of an epoch, or remove it and set trainer.max_steps",
                limit=limit,
            )
        )
    elif limit == 0:
        yield tr("trainer.limit_train_batches is 0, so no row would train: remove it")
    elif isinstance(limit, int) and trainer.world_size > 1:
        yield (
            tr(
                "trainer.limit_train_batches is {limit} on each of {world_size} processes, "
                "which would be other rows with another number of them: remove it and set "
                "trainer.max_steps, or train on a smaller file",
                limit=limit,
                world_size=trainer.world_size,
            )
        )
    limit = trainer.limit_val_batches
    if isinstance(limit, int) or limit != 1:
        yield (
            tr(
                "trainer.limit_val_batches is {limit}, and losses are compared on all "
                "validation rows: remove it, and lower data.val_fraction (0 trains without "
                "validation)",
                limit=limit,
            )
        )


def _loop_problems(trainer: L.Trainer) -> Iterator[str]:
    for callback in getattr(trainer, "callbacks"):  # noqa: B009 (mypy does not know it)
        for kind, advice in REFUSED_CALLBACKS.items():
            if isinstance(callback, kind):
                yield tr(
                    "the callback {type} is not supported: {advice}",
                    type=type(callback).__name__,
                    advice=tr(advice),
                )
    if (accumulate := trainer.accumulate_grad_batches) < 1:
        yield tr(
            "trainer.accumulate_grad_batches is {accumulate}: choose 1 or more",
            accumulate=accumulate,
        )
    every = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
    if every != 1 and trainer.max_epochs != 1:
        yield (
            tr(
                "trainer.reload_dataloaders_every_n_epochs is {every}, but each epoch has its "
                "own plan: set it to 1",
                every=every,
            )
        )
    if splits_batches_over_ranks(trainer):
        yield (
            tr(
                "trainer.use_distributed_sampler is true, but the plan already assigns rows to "
                "processes: set it to false"
            )
        )
    clip = trainer.gradient_clip_val
    if clip is not None and not (math.isfinite(clip) and clip >= 0):
        yield tr(
            "trainer.gradient_clip_val is {clip}: choose a finite number, or 0 for no clipping",
            clip=clip,
        )
    # With an interval in time, Lightning does not set the attribute.
    if getattr(trainer, "val_check_interval", 1.0) == 0:
        yield tr("trainer.val_check_interval is 0: choose micro-batches, or a share of an epoch")
    if trainer.check_val_every_n_epoch == 0:
        yield tr("trainer.check_val_every_n_epoch is 0: choose 1 or more")
