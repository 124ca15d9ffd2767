"""The command line and YAML of a run, as one parser."""

import re
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit.distributed.sharding import check_strategy
from lit.resume.checkpoint import Checkpoints
from lit.settings.keys import check_keys, nearest
from lit.train.datamodule import QADataModule
from lit.train.module import LoRAModule
from lora.config import ConfigError
from lora.files import write_text

TRAINER_DEFAULTS = {
    "max_epochs": 3,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 1,
    "enable_model_summary": False,
    # The base is measured before training, by trainer.validate.
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
    # A resumed run replaces last.ckpt; Lightning would write last-v1.ckpt beside it.
    "checkpoint.enable_version_counter": False,
}


def early_stopping(patience: int | None = None, min_delta: float = 0.0) -> EarlyStopping | None:
    """Stop when the validation loss no longer falls.

    Args:
        patience: Validations without progress before stopping; off unless given.
        min_delta: Progress smaller than this does not count.
    """
    if patience is None:
        return None
    # At the end of a validation, which a resumed run repeats; the end of an epoch it may not see.
    return EarlyStopping(
        "val/loss", patience=patience, min_delta=min_delta, check_on_train_epoch_end=False
    )


class Arguments(LightningCLI):
    """A run's settings, parsed; ``start`` makes the objects they describe.

    Args:
        args: The command line.
        program: The command, for ``--help``.
        description: What it does, for ``--help``.
    """

    def __init__(self, args: list[str], program: str, description: str) -> None:
        self.command = args
        super().__init__(
            LoRAModule,
            QADataModule,
            run=False,
            args=args,
            seed_everything_default=42,
            save_config_callback=None,
            parser_kwargs={
                "exit_on_error": False,
                "allow_abbrev": False,
                "prog": program,
                "description": description,
            },
            trainer_defaults=TRAINER_DEFAULTS,
            auto_configure_optimizers=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add what is not Lightning's own, and join what belongs together."""
        parser.add_argument(
            "--output_dir",
            type=str,
            default=f"runs/{_config_name(self.command)}",
            help="The run's folder.",
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Go on from a checkpoint: last, or a file.",
        )
        parser.add_argument(
            "--overwrite", type=bool, default=False, help="Replace a run that is in output_dir."
        )
        parser.add_argument(
            "--force", type=bool, default=False, help="Train also what cannot work."
        )
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

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Look for wrong keys in the YAML files, with their lines, then parse."""
        known = list(parser.get_defaults().keys())
        for path in _config_files(args):
            check_keys(path, known)
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise ConfigError(_explain(str(error), known)) from None

    def instantiate_classes(self) -> None:
        """Wait for ``start``: the run's folder is claimed first."""

    def start(self, callbacks: list[Any], **trainer: Any) -> None:
        """Make the module, the data module and the trainer.

        Args:
            callbacks: Added to those of the settings.
            trainer: Arguments of the Trainer that override the settings.

        Raises:
            ConfigError: The strategy cannot train such a model.
        """
        check_strategy(self.config.trainer.strategy, self.config.model.quantize)
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule: QADataModule = self.config_init["data"]
        self.model: LoRAModule = self.config_init["model"]
        stopping = early_stopping(**self.config.early_stopping.as_dict())
        own = self.config_init["trainer"].get("callbacks") or []
        callbacks = [*callbacks, *([stopping] if stopping else []), *own]
        self.trainer = self.instantiate_trainer(callbacks=callbacks, **trainer)

    def save(self, path: Path) -> None:
        """Write everything resolved, so that the file alone repeats the run."""
        config: Namespace = self.config.clone()
        # Going on, replacing and forcing are what one command did, not what the run is.
        config.ckpt_path, config.overwrite, config.force = None, False, False
        write_text(path, self.parser.dump(config, skip_unset=False))

    def settings(self) -> dict[str, Any]:
        """Every setting by its dotted name."""
        return vars(self.config.as_flat())


def _config_files(args: list[str]) -> list[Path]:
    followers = [*args[1:], ""]
    return [
        Path(value.partition("=")[2] if "=" in value else follower)
        for value, follower in zip(args, followers, strict=True)
        if value == "--config" or value.startswith("--config=")
    ]


def _config_name(args: list[str]) -> str:
    files = _config_files(args)
    return files[-1].stem if files else "fit"


def _explain(message: str, known: list[str]) -> str:
    """One line of jsonargparse's message, with the nearest right name."""
    message = " ".join(message.split())
    if found := re.search(r"unrecognized arguments: (?:--)?([\w.]+)", message):
        return f"there is no setting {found[1]}{nearest(found[1], known)}"
    if found := re.search(r'Parser key "([\w.]+)": Expected an? (.+)\. Got value: (.*)', message):
        name, kind, value = found[1], found[2], found[3]
        if value == "None":
            return f"{name} is needed"
        if choices := re.search(r"Literal\[(.+)\]", kind):
            return f"{name} is {value}; there are {choices[1]}"
        kind = re.sub(r"<class '(.+)'>", r"\1", kind)
        return f"{name} is {value}, which is no {kind}"
    if found := re.search(r"arguments are required: (.+)", message):
        return f"{found[1]} is needed: give --{found[1]}, or set it in the config file"
    return message


def parse(
    args: list[str],
    program: str = "python -m lit.fit",
    description: str = "Train a LoRA adapter.",
) -> Arguments:
    """Parse a run's settings.

    Raises:
        ConfigError: One line on what is wrong.
        SystemExit: After ``--help``.
    """
    return Arguments(args, program, description)
