"""The command line and YAML of a run, as one parser."""

import difflib
import re
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit.checkpoint import Checkpoints
from lit.datamodule import QADataModule
from lit.module import LoRAModule
from lora.config import ConfigError


def early_stopping(patience: int | None = None, min_delta: float = 0.0) -> EarlyStopping | None:
    """Stop when the validation loss no longer falls.

    Args:
        patience: Validations without progress before stopping; off unless given.
        min_delta: Progress smaller than this does not count.
    """
    if patience is None:
        return None
    return EarlyStopping("val/loss", patience=patience, min_delta=min_delta)


class Arguments(LightningCLI):
    """Parses a run's settings; ``start`` makes the objects."""

    def __init__(self, args: list[str]) -> None:
        self.args = args
        super().__init__(
            LoRAModule,
            QADataModule,
            run=False,
            args=args,
            seed_everything_default=42,
            save_config_callback=None,
            parser_kwargs={"exit_on_error": False, "prog": "python -m lit.fit"},
            trainer_defaults=TRAINER_DEFAULTS,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is not Lightning's own, and join what belongs together."""
        parser.add_argument("--output_dir", type=str, default=_default_output(self.args))
        parser.add_argument("--ckpt_path", type=str | None, default=None)
        parser.add_argument("--overwrite", type=bool, default=False)
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.set_defaults(CHECKPOINT_DEFAULTS)
        parser.add_function_arguments(early_stopping, "early_stopping")
        parser.link_arguments(
            "output_dir", "checkpoint.dirpath", lambda path: str(Path(path) / "checkpoints")
        )
        for name in ("base", "revision"):
            parser.link_arguments(f"model.{name}", f"data.{name}")
        for group in ("model", "data"):
            parser.link_arguments("seed_everything", f"{group}.seed")

    def instantiate_classes(self) -> None:
        """Wait: folders are claimed and loggers made first."""

    def start(self, **trainer: Any) -> None:
        """Make the module, the data module and the trainer, with trainer arguments on top."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule: QADataModule = self.config_init["data"]
        self.model: LoRAModule = self.config_init["model"]
        stopping = early_stopping(**self.config.early_stopping.as_dict())
        callbacks = [*trainer.pop("callbacks"), *([stopping] if stopping else [])]
        callbacks += self.config_init["trainer"].get("callbacks") or []
        self.trainer = self.instantiate_trainer(callbacks=callbacks, **trainer)


TRAINER_DEFAULTS = {
    "max_epochs": 3,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 1,
    # An adapter is judged before it trains, by trainer.validate.
    "num_sanity_val_steps": 0,
    # The plan deals rows to ranks, anew each epoch.
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
}


def parse(args: list[str]) -> Arguments:
    """Parse a run's settings.

    Raises:
        ConfigError: One line on what is wrong, with the nearest right name.
    """
    try:
        return Arguments(args)
    except (ArgumentError, TypeError, ValueError, OSError) as error:
        raise ConfigError(_explain(error, args)) from None


def _default_output(args: list[str]) -> str:
    """runs/<name of the config>."""
    names = [
        value.partition("=")[2] if value.startswith("--config=") else follower
        for value, follower in zip(args, [*args[1:], ""], strict=True)
        if value == "--config" or value.startswith("--config=")
    ]
    return f"runs/{Path(names[-1]).stem if names else 'fit'}"


def _explain(error: Exception, args: list[str]) -> str:
    return str(error)
