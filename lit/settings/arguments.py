"""The settings of a run: command line and YAML as one parser."""

from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from data.text import clean
from lit.distributed.sharding import check_strategy
from lit.messages import tr
from lit.resume.checkpoint import Checkpoints
from lit.settings.command_line import config_files, config_name, explain_error
from lit.settings.continuing import adapter_defaults, check_adapter, named_adapter, without_alias
from lit.settings.defaults import CHECKPOINT_DEFAULTS, TRAINER_DEFAULTS, early_stopping
from lit.settings.hardware import Hardware
from lit.settings.help_page import TRAIN, asked_page, help_page
from lit.settings.keys import check_keys
from lit.settings.trainer_settings import PrecisionTrainer, check_trainer_settings
from lit.train.datamodule import QADataModule
from lit.train.module import LoRAModule
from lora.config import ConfigError, LoRAConfig
from lora.storage.files import write_text


class Arguments(LightningCLI):
    """The parsed settings of a run; ``instantiate`` and ``make_trainer`` make its objects.

    Args:
        args: The command line.
        program: The command, as ``--help`` names it.
        description: What it does, for ``--help``.
    """

    hardware: Hardware
    """The device and the precision; ``parse`` finds them."""

    def __init__(self, args: list[str], program: str, description: str) -> None:
        self.command = args = without_alias(args)
        super().__init__(
            LoRAModule,
            QADataModule,
            run=False,
            args=args,
            seed_everything_default=42,
            trainer_class=PrecisionTrainer,
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
        """Add the settings that Lightning does not have, and link those that share a value."""
        parser.add_argument(
            "--output_dir",
            type=str,
            default=f"runs/{config_name(self.command)}",
            help="The run's folder.",
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Resume from a checkpoint: last, or a file.",
        )
        parser.add_argument(
            "--overwrite", type=bool, default=False, help="Replace the run in output_dir."
        )
        parser.add_argument(
            "--force",
            type=bool,
            default=False,
            help="Train even if the check says that the run cannot work.",
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
        """Check the keys of the YAML files, with their lines, then parse."""
        known = list(parser.get_defaults().keys())
        if (every := asked_page(args)) is not None:
            print(clean(help_page(parser, every)))
            raise SystemExit(0)
        for path in config_files(args):
            check_keys(path, known)
        if adapter := named_adapter(args):
            parser.set_defaults(adapter_defaults(adapter))
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise ConfigError(explain_error(str(error), known)) from None
        check_adapter(self.config, adapter)

    def instantiate_classes(self) -> None:
        """Make nothing yet: the run's folder is claimed before ``instantiate``."""

    def instantiate(self) -> None:
        """Make the module and the data module.

        Raises:
            ConfigError: The strategy cannot train such a model, or a setting is out of range.
        """
        check_strategy(self.config.trainer.strategy, self.config.model.quantize)
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule: QADataModule = self.config_init["data"]
        self.model: LoRAModule = self.config_init["model"]

    def best_by(self) -> str:
        """Return how the best adapter is chosen.

        Raises:
            ConfigError: By a number that the run does not measure.
        """
        chosen = str(self.config.checkpoint.best_by)
        if chosen == "matching" and not self.config.data.val_matching:
            raise ConfigError(
                tr(
                    "checkpoint.best_by is matching, which this run does not measure: add "
                    "--data.val_matching true"
                )
            )
        return chosen

    def make_trainer(self, callbacks: list[Any], **trainer: Any) -> Trainer:
        """Make the trainer, and give it to the data module.

        Args:
            callbacks: Added to those of the settings.
            trainer: Arguments of the Trainer that override the settings.

        Raises:
            ConfigError: A setting of the Trainer cannot be used.
        """
        check_trainer_settings(self.config.trainer, self.config.data.val_every_n_steps)
        stopping = early_stopping(**self.config.early_stopping.as_dict())
        own = self.config_init["trainer"].get("callbacks") or []
        own = [own] if isinstance(own, Callback) else own
        callbacks = [*callbacks, *([stopping] if stopping else []), *own]
        try:
            self.trainer = self.instantiate_trainer(callbacks=callbacks, **trainer)
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise ConfigError(tr("trainer: {split}", split=" ".join(str(error).split()))) from None
        self.datamodule.trainer = self.trainer
        return self.trainer

    def save(self, path: Path) -> None:
        """Write every resolved setting, so that the file alone repeats the run."""
        config: Namespace = self.config.clone()
        # Resuming, replacing and forcing belong to one command, not to the run.
        config.ckpt_path, config.overwrite, config.force = None, False, False
        write_text(path, self.parser.dump(config, skip_unset=False))

    def inputs(self) -> list[tuple[str, Path]]:
        """Return the files and folders that the run reads, each with its setting."""
        data, base = self.config.data, self.config.model.base
        named: list[tuple[str, list[Any]]] = [("--config", [*config_files(self.command)])]
        if adapter := self.config.model.adapter:
            # Before data.template, which may be a file in the adapter's folder.
            named.append(("model.adapter", [adapter]))
        for name in ("path", "val_path", "template"):
            value = getattr(data, name) or []
            named.append((f"data.{name}", [value] if isinstance(value, str | Path) else value))
        named.append(("model.base", [base]))
        return [(name, Path(path)) for name, paths in named for path in paths if _exists(path)]

    def settings(self) -> dict[str, Any]:
        """Return every setting by its dotted name."""
        return vars(self.config.as_flat())


def _exists(path: str | Path) -> bool:
    """Return whether a setting is a file or folder, and not a name of the hub or a keyword."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def parse(
    args: list[str],
    program: str = "python -m lit.fit",
    description: str = TRAIN,
) -> Arguments:
    """Parse the settings of a run.

    Raises:
        ConfigError: A setting is unknown, missing or of a wrong type, or the device cannot do what
            it asks for; the message is one line.
        SystemExit: After ``--help``.
    """
    arguments = Arguments(args, program, description)
    arguments.hardware = Hardware(arguments.config)
    return arguments


def setting_names() -> dict[str, str]:
    """Return the dotted name of each setting by the argument that ``lora`` or ``data`` calls it."""
    lora = {field.name: f"model.lora.{field.name}" for field in fields(LoRAConfig)}
    data = {name: f"data.{name}" for name in signature(QADataModule).parameters}
    model = {name: f"model.{name}" for name in ("base", "quantize", "optimizer")}
    trainer = {"device": "trainer.accelerator", "precision": "trainer.precision"}
    return data | lora | model | trainer
