"""Settings of Lightning's own classes that have another default here."""

import math

from lightning.pytorch.callbacks import EarlyStopping

from lit.messages import tr
from lora.config import ConfigError

TRAINER_DEFAULTS = {
    "max_epochs": 3,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
    # The base is measured before training, by trainer.validate.
    "num_sanity_val_steps": 0,
    # The plan assigns rows to ranks, in a new order each epoch.
    "use_distributed_sampler": False,
    "reload_dataloaders_every_n_epochs": 1,
}
CHECKPOINT_DEFAULTS = {
    "checkpoint.filename": "step-{step}",
    "checkpoint.auto_insert_metric_name": False,
    "checkpoint.monitor": "step",
    "checkpoint.mode": "max",
    "checkpoint.save_top_k": 2,
    "checkpoint.save_last": True,
    "checkpoint.every_n_train_steps": 50,
    # A resumed run replaces last.ckpt; by default Lightning writes last-v1.ckpt beside it.
    "checkpoint.enable_version_counter": False,
}


def early_stopping(patience: int | None = None, min_delta: float = 0.0) -> EarlyStopping | None:
    """Return a callback that stops when the validation loss no longer falls, or None.

    Args:
        patience: Validations without progress before stopping; None never stops.
        min_delta: A smaller decrease does not count as progress.

    Raises:
        ConfigError: ``min_delta`` is negative or not finite.
    """
    if patience is None:
        return None
    if not 0 <= min_delta < math.inf:
        raise ConfigError(
            tr("early_stopping.min_delta is {min_delta}; it must be 0 or more", min_delta=min_delta)
        )
    # A loss of NaN is the step guard's: where it lets the run continue, NaN is no progress.
    # Checked at the end of a validation, which a resumed run repeats, not at the end of an epoch.
    return EarlyStopping(
        "val/loss",
        patience=patience,
        min_delta=min_delta,
        check_on_train_epoch_end=False,
        check_finite=False,
    )
