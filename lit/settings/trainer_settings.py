"""The Trainer's own settings: those that differ here, and those that a run sets itself."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import Precision

from lit.device.precision import BF16_FROZEN, PrecisionName
from lit.messages import tr, tr_mark
from lit.train.trainer_check import interval_problems
from lora.config import ConfigError

UNUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "logger": (
        (None, True),
        tr_mark("a run logs to TensorBoard and metrics.csv in output_dir: remove it"),
    ),
    "plugins": (
        (None,),
        tr_mark("a run has its own checkpoint plugin: remove it; set trainer.precision"),
    ),
    "default_root_dir": ((None,), tr_mark("add --output_dir instead")),
    "enable_checkpointing": (
        (None, True),
        tr_mark(
            "without checkpoints a run cannot be resumed: remove it; "
            "checkpoint.every_n_train_steps sets how often they are written"
        ),
    ),
    "barebones": ((False,), tr_mark("it logs nothing and saves nothing: remove it")),
    "num_sanity_val_steps": (
        (0,),
        tr_mark("all validation rows are measured before training anyway: remove it"),
    ),
    "model_registry": ((None,), tr_mark("upload output_dir/adapter after the run instead")),
}
"""For each setting: the values that can be given, and what to do with another one."""


def check_trainer_settings(
    settings: Mapping[str, Any], val_every_n_steps: int | None = None
) -> None:
    """Refuse settings of the Trainer that a run would not follow.

    Args:
        settings: The values below ``trainer`` by name.
        val_every_n_steps: The setting below ``data``, which takes the place of two of the Trainer.

    Raises:
        ConfigError: There are such settings; the message has a line for each.
    """
    problems = [
        tr(
            "trainer.{name} is {value}: {advice}",
            name=name,
            value=settings[name],
            advice=tr(advice),
        )
        for name, (allowed, advice) in UNUSED.items()
        if settings[name] not in allowed
    ]
    problems += interval_problems(
        val_every_n_steps, settings["val_check_interval"], settings["check_val_every_n_epoch"]
    )
    if problems:
        raise ConfigError("\n".join(problems))


class PrecisionTrainer(Trainer):
    """Lightning's Trainer with the precisions of this project.

    Args:
        precision: ``auto`` takes what suits the device and the model.
    """

    def __init__(self, *args: Any, precision: PrecisionName = "auto", **kwargs: Any) -> None:
        assert precision != "auto", "lit.settings.hardware.Hardware comes first"
        if precision == BF16_FROZEN:
            kwargs["plugins"] = [*(kwargs.get("plugins") or ()), Bf16Frozen()]
            super().__init__(*args, **kwargs)
        else:
            super().__init__(*args, precision=precision, **kwargs)  # type: ignore[arg-type]


class Bf16Frozen(Precision):
    """The precision ``bf16-frozen``: layers of the model compute in bfloat16, Lightning nothing."""

    precision = BF16_FROZEN  # type: ignore[assignment]
