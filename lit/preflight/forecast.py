"""Steps, tokens and labels of a run, computed from its plan."""

from dataclasses import dataclass
from typing import NamedTuple

from data.planning.plan import Plan
from lit.messages import tr
from lit.settings.arguments import Arguments
from lit.train.schedule import warmup_steps


@dataclass(frozen=True)
class Forecast:
    """The size of a run.

    Args:
        epochs: Passes over the rows; None where trainer.max_steps may end the run.
        steps: Optimizer steps of the whole run; below 1 if the run has no end or no step.
        warmup: Optimizer steps in which the learning rate rises.
        first: The plan of the first epoch.
        tokens: Tokens that an epoch computes.
        shared: Tokens of the rows that it does not compute again, because other rows of their
            micro-batches have them.
        labels: Labeled tokens of an epoch.
    """

    epochs: int | None
    steps: int
    warmup: int
    first: Plan
    tokens: int
    shared: int
    labels: int

    @property
    def row_tokens(self) -> int:
        """Tokens of the rows of an epoch."""
        return self.tokens + self.shared

    def describe_sharing(self) -> str:
        """Return what shared beginnings save; empty if they save nothing."""
        if not self.shared:
            return ""
        share, shared = self.shared / self.row_tokens, self.shared
        return tr(
            "beginnings that rows share save {shared:,} of {tokens:,} tokens ({share:.1%})",
            shared=shared,
            tokens=self.row_tokens,
            share=share,
        )


def forecast(arguments: Arguments) -> Forecast:
    """Compute the size of a run.

    Args:
        arguments: Started, with the data set up.
    """
    data, trainer = arguments.datamodule, arguments.trainer
    steps, first = data.total_steps(), data.plans.epoch(0)
    # Not all rows: trainer.limit_train_batches shortens an epoch.
    rows = data.train_rows[first.order]
    epochs_end_it = trainer.max_steps < 0 and (trainer.max_epochs or 0) > 0
    return Forecast(
        epochs=trainer.max_epochs if epochs_end_it else None,
        steps=steps,
        warmup=warmup_steps(arguments.model.warmup, steps),
        first=first,
        tokens=int(first.tokens.sum()),
        shared=int(data.store.lengths[rows].sum() - first.tokens.sum()),
        labels=int(data.store.label_counts[rows].sum()),
    )


class MicroBatchSize(NamedTuple):
    """The size of a micro-batch; lengths and paths are those of ``Batch``."""

    lengths: tuple[int, ...]
    labels: int
    paths: tuple[tuple[int, ...], ...]


def largest_micro_batch(arguments: Arguments, forecast: Forecast) -> MicroBatchSize:
    """Return the size of the run's micro-batch with the most tokens."""
    batch = arguments.datamodule.largest_micro_batch(forecast.epochs or 1, every_rank=True)
    return MicroBatchSize(batch.lengths, batch.label_count, batch.paths)


def describe_validation(arguments: Arguments, forecast: Forecast) -> str:
    """Return when a run validates, such as ``after every 10 optimizer steps, and at the end``."""
    data, trainer = arguments.datamodule, arguments.trainer
    if not len(data.val_rows):
        return tr("never: no rows validate")
    if (every := data.val_every_n_steps) is not None:
        if every >= forecast.steps > 0:
            return tr("after the last optimizer step")
        if every == 1:
            return tr("after each step")
        return tr(
            "after every {every} optimizer steps, and after the last optimizer step", every=every
        )
    epochs = trainer.check_val_every_n_epoch
    # With an interval in time, Lightning does not set the attribute.
    interval = getattr(trainer, "val_check_interval", None)
    if interval is None:
        return tr(
            "every {time} (DD:HH:MM:SS), and after the last optimizer step",
            time=arguments.config.trainer.val_check_interval,
        )
    if isinstance(interval, float):
        if interval == 1:
            return _after_epochs(epochs)
        interval = max(1, int(interval * forecast.first.micro_steps))
    if epochs is None:
        return tr(
            "after every {interval} micro-batches, and after the last optimizer step",
            interval=interval,
        )
    if epochs == 1:
        return tr(
            "after every {interval} micro-batches of each epoch, and after the last optimizer step",
            interval=interval,
        )
    return tr(
        "after every {interval} micro-batches of every {epochs} epochs, and after the last "
        "optimizer step",
        interval=interval,
        epochs=epochs,
    )


def _after_epochs(epochs: int | None) -> str:
    if epochs == 1:
        return tr("after each epoch, and after the last optimizer step")
    return tr("after every {epochs} epochs, and after the last optimizer step", epochs=epochs)
