"""The settings of a run that goes on from an adapter: what the adapter decides, by default."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from lit.messages import tr
from lit.settings.command_line import config_files
from lora.config import ConfigError, LoRAConfig
from lora.storage.adapter import read_config
from lora.storage.continuing import check_agreement, settings_of
from lora.storage.metadata import read_quantization

SETTING = "model.adapter"
ALIAS = "--adapter"
"""What the other commands call an adapter's folder."""


def without_alias(args: list[str]) -> list[str]:
    """Return a command line with the setting's own name in place of ``--adapter``."""
    return [
        f"--{SETTING}{arg.removeprefix(ALIAS)}" if arg.partition("=")[0] == ALIAS else arg
        for arg in args
    ]


def named_adapter(args: list[str]) -> str | None:
    """Return the adapter that a command line or its config files name; the last one counts.

    The config files are regular YAML files already: see ``check_keys``.
    """
    files, adapter = iter(config_files(args)), None
    for arg, value in zip(args, [*args[1:], ""], strict=True):
        name, equals, attached = arg.partition("=")
        if name == "--config":
            config = yaml.safe_load(next(files).read_text(encoding="utf-8-sig"))
            model = config.get("model") if isinstance(config, dict) else None
            if isinstance(model, dict) and "adapter" in model:
                adapter = model["adapter"]
        elif name == f"--{SETTING}":
            adapter = attached if equals else value
    return None if adapter in (None, "", "null") else str(adapter)


def adapter_defaults(adapter: str) -> dict[str, Any]:
    """Return the defaults of the settings that an adapter decides.

    Raises:
        ConfigError: The folder holds no adapter that loads.
    """
    config, settings, folder = settings_of(adapter), read_config(adapter), Path(adapter)
    defaults = {f"model.lora.{name}": value for name, value in asdict(config).items()}
    defaults["model.quantize"] = read_quantization(folder)
    base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    # A relative path with .. depends on the folder it is read from.
    if isinstance(base, str) and base and ".." not in Path(base).parts:
        defaults["model.base"] = base
        defaults["model.revision"] = revision if isinstance(revision, str) else None
    if (template := folder / "chat_template.jinja").is_file():
        defaults["data.template"] = str(template)
    return defaults


def check_adapter(config: Namespace, adapter: str | None) -> None:
    """Check the settings of a run against those of its adapter.

    Args:
        config: The parsed settings.
        adapter: The adapter whose settings were the defaults.

    Raises:
        ConfigError: One differs, or the adapter was named in a way that was not found.
    """
    if config.model.adapter != adapter:
        raise ConfigError(
            tr(
                "{setting} is {adapter}, given in an unusual form: give --{setting} D",
                setting=SETTING,
                adapter=config.model.adapter,
            )
        )
    if adapter is not None:
        check_agreement(LoRAConfig(**config.model.lora.as_dict()), adapter)
