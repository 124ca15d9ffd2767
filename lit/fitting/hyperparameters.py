"""The settings and the losses of a run for TensorBoard's HPARAMS tab, which compares runs."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

COMPARED = (
    *("model.base", "model.adapter", "model.quantize", "model.lora.variant", "model.lora.r"),
    *("model.lora.lora_alpha", "model.lora.lora_dropout", "model.lora.use_rslora"),
    *("model.lora.target_modules", "model.lora.modules_to_save", "model.lora.loraplus_lr_ratio"),
    *("model.lora.neftune_alpha", "model.optimizer", "model.lr", "model.weight_decay"),
    *("model.scheduler", "model.warmup", "data.path", "data.template", "data.max_length"),
    *("data.batch_size", "data.max_tokens", "trainer.max_epochs", "trainer.max_steps"),
    *("trainer.accumulate_grad_batches", "trainer.gradient_clip_val", "trainer.precision"),
    "seed_everything",
)
"""The settings that people compare; config.yaml has all."""


def hyperparameters(settings: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Return the compared settings by their dotted names, as values that TensorBoard shows."""
    return {name: _shown(settings[name]) for name in COMPARED}


def log_hyperparameters(
    logger: TensorBoardLogger, settings: Mapping[str, Any], losses: Mapping[str, float], step: int
) -> None:
    """Write the hyperparameters and the final losses of a run, and close the events file.

    Args:
        logger: The run's logger.
        settings: Every setting by its dotted name.
        losses: The final losses by name; those that are not finite are left out.
        step: The last optimizer step.
    """
    metrics = {f"final/{name}": loss for name, loss in losses.items() if math.isfinite(loss)}
    logger.log_hyperparams(hyperparameters(settings), metrics, step)
    logger.finalize("success")


def _shown(value: Any) -> bool | int | float | str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    # TensorBoard leaves out None, and with it the runs that have the default.
    return value if isinstance(value, bool | int | float | str) else str(value).lower()
