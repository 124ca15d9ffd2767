"""Go on training an adapter: its settings are those of the files, and given ones must agree."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn

from lora.config import ConfigError, LoRAConfig
from lora.messages import tr
from lora.storage.adapter import fitting_config, load_adapter, read_config
from lora.storage.peft_format import AdapterError, from_peft
from lora.targets import select_layers

COMPARED = ("r", "lora_alpha", "use_rslora", "variant", "rank_pattern", "alpha_pattern")
"""Settings that the tensors of an adapter decide. Which layers it has is compared on the model.

Dropout, LoRA+ and NEFTune belong to a training, and may be new.
"""


def settings_of(directory: str | Path) -> LoRAConfig:
    """Return the settings in an adapter's folder; no tensor is read.

    Raises:
        AdapterError: There are none, or one is not supported.
    """
    try:
        return from_peft(read_config(directory))
    except AdapterError as error:
        text = str(error)
        raise AdapterError(text if str(directory) in text else f"{directory}: {text}") from None


def check_agreement(given: LoRAConfig, directory: str | Path) -> None:
    """Check that given settings are those of an adapter.

    Raises:
        ConfigError: One differs; the message has both values of each.
    """
    own = settings_of(directory)
    pairs = {name: (getattr(given, name), getattr(own, name)) for name in COMPARED}
    different = [
        tr(
            "`{name}` is {value}, and the adapter has {actual}",
            name=name,
            value=value,
            actual=actual,
        )
        for name, (value, actual) in pairs.items()
        if value != actual
    ]
    if different:
        raise ConfigError(
            tr(
                "{different}: training goes on with the settings of {directory}. Leave "
                "these settings out, or give the adapter's values",
                different="; ".join(different),
                directory=directory,
            )
        )


def continue_adapter(model: nn.Module, directory: str | Path, given: LoRAConfig) -> LoRAConfig:
    """Put a saved adapter on a base model to train it further.

    Args:
        model: The base model; it is changed only after every check has passed.
        directory: A folder written by this package or by PEFT; it stays as it is.
        given: The settings of the training, of which the dropout is used.

    Returns:
        The settings of the adapter on the model.

    Raises:
        ConfigError: A setting or a layer differs from the adapter's, or the adapter does not fit.
    """
    check_layers(model, directory, given)
    return load_adapter(model, directory, given.lora_dropout)


def check_layers(model: nn.Module, directory: str | Path, given: LoRAConfig) -> LoRAConfig:
    """Check that an adapter fits a model, and that given settings choose the layers that it has.

    Args:
        model: The base model, without adapters; on the meta device, weights are not needed.
        directory: The adapter's folder.
        given: The settings of the training.

    Returns:
        The settings of the adapter, with those of the training that may be new.

    Raises:
        ConfigError: A setting or a layer differs, or the adapter does not fit.
    """
    check_agreement(given, directory)
    config = fitting_config(model, directory)
    given = replace(given, ensure_weight_tying=config.ensure_weight_tying)
    chosen, own = select_layers(model, given), select_layers(model, config)
    pairs: list[tuple[str, Mapping[str, nn.Module], Mapping[str, nn.Module]]] = [
        ("target_modules", chosen[0], own[0]),
        ("modules_to_save", chosen[1], own[1]),
    ]
    for name, asked, actual in pairs:
        if asked.keys() != actual.keys():
            raise ConfigError(
                tr(
                    "`{name}` is {value}, and the adapter {directory} has {actual}: "
                    "these are other layers ({difference}). Leave `{name}` out, or give the "
                    "adapter's value",
                    name=name,
                    value=getattr(given, name),
                    directory=directory,
                    actual=getattr(config, name),
                    difference=_first(asked, actual),
                )
            )
    training = {
        name: getattr(given, name)
        for name in ("lora_dropout", "loraplus_lr_ratio", "neftune_alpha")
    }
    return replace(config, **training)


def _first(asked: Mapping[str, object], actual: Mapping[str, object]) -> str:
    path = min(asked.keys() ^ actual.keys())
    if path in actual:
        return tr("{path} is only in the adapter", path=path)
    return tr("{path} is only in the settings", path=path)
