"""A space of settings from a YAML file; what cannot be searched is refused with its line."""

import math
from pathlib import Path
from typing import Any

import yaml

from lit.messages import tr
from lit.searching.space import KINDS, LR, RECORDED, Dimension, Settings, Space
from lit.settings.keys import check_keys, nearest
from lora.config import ConfigError, LoRAConfig


def read_space(path: Path, own: Settings, known: list[str], adapter: str | None) -> Space:
    """Read a space from a YAML file.

    Args:
        path: Its keys are settings, dotted or nested; a value is a list of choices, or a range
            such as ``{low: 1e-5, high: 1e-2, log: true}``.
        own: The config's own values of every setting.
        known: The dotted names of all settings.
        adapter: As in ``default_space``.

    Raises:
        ConfigError: A key or a value cannot be used; the message has file and line.
    """
    check_keys(path, known)
    root = yaml.compose(path.read_text(encoding="utf-8-sig"), yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode), "check_keys has seen it"
    found: dict[str, tuple[yaml.Node, int]] = {}
    _collect(root, "", known, found)
    dimensions = []
    for name, (node, line) in found.items():
        where = f"{path}:{line}"
        if name not in KINDS or (adapter and name.startswith("model.lora.")):
            raise ConfigError(f"{where}: {_unusable(name, adapter)}")
        try:
            value = yaml.SafeLoader("").construct_document(node)
            dimensions.append(_checked(_dimension(name, value), own))
        except (ConfigError, yaml.YAMLError) as error:
            raise ConfigError(f"{where}: {error}") from None
    if not dimensions:
        raise ConfigError(tr("{path} names no setting to search", path=path))
    names = [*RECORDED, *(x.name for x in dimensions if x.name not in RECORDED)]
    return Space(tuple(dimensions), {name: own[name] for name in names})


def _unusable(name: str, adapter: str | None) -> str:
    if adapter and name in KINDS:
        return tr("{name} is decided by model.adapter {adapter}", name=name, adapter=adapter)
    return tr(
        "{name} cannot be searched{guess}. These can: {names}",
        name=name,
        guess=nearest(name, list(KINDS)),
        names=", ".join(KINDS),
    )


def _collect(
    node: yaml.MappingNode, prefix: str, known: list[str], found: dict[str, tuple[yaml.Node, int]]
) -> None:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if name not in known and isinstance(value, yaml.MappingNode):
            _collect(value, f"{name}.", known, found)
        else:
            found[name] = value, key.start_mark.line + 1


def _dimension(name: str, value: Any) -> Dimension:
    if isinstance(value, dict):
        return _range(name, value)
    choices = value if isinstance(value, list) else [value]
    if not choices:
        raise ConfigError(tr("{name} has no choices", name=name))
    for choice in choices:
        # YAML reads 1e-4 as text.
        if not _fits(choice, KINDS[name]):
            raise ConfigError(
                tr(
                    "{name} has the choice {choice!r}, which is of type {given}; it must be {kind}",
                    name=name,
                    choice=choice,
                    given=type(choice).__name__,
                    kind=" or ".join(kind.__name__ for kind in KINDS[name]),
                )
            )
    unique = [x for i, x in enumerate(choices) if x not in choices[:i]]
    return Dimension(name, tuple(_number(x) if float in KINDS[name] else x for x in unique))


def _range(name: str, value: dict[Any, Any]) -> Dimension:
    example = "{low: 1e-5, high: 1e-2, log: true}"
    if int not in KINDS[name]:
        raise ConfigError(tr("{name} is no number: give a list of choices", name=name))
    wrong = [key for key in value if key not in ("low", "high", "log")]
    if wrong or not {"low", "high"} <= value.keys():
        guess = nearest(str(wrong[0]), ["low", "high", "log"]) if wrong else ""
        raise ConfigError(
            tr(
                "the range of {name} has {keys}{guess}; write it as {example}",
                name=name,
                keys=", ".join(map(str, value)) or "nothing",
                guess=guess,
                example=example,
            )
        )
    low, high, log = _number(value["low"]), _number(value["high"]), value.get("log", False)
    numbers = _fits(low, (int, float)) and _fits(high, (int, float)) and isinstance(log, bool)
    if not numbers or not math.isfinite(low) or not low < high < math.inf or (log and low <= 0):
        raise ConfigError(
            tr(
                "the range of {name} is low {low}, high {high}, log {log}: low must be below high, "
                "and above 0 if log is true, such as {example}",
                name=name,
                low=value["low"],
                high=value["high"],
                log=log,
                example=example,
            )
        )
    return Dimension(name, low=float(low), high=float(high), log=log)


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    value = _number(value) if float in kinds else value
    # bool is an int to Python, not to a person.
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _checked(dimension: Dimension, own: Settings) -> Dimension:
    """Refuse values that the adapter's settings, or the module, would refuse later."""
    ends = (dimension.rounded(dimension.low), dimension.rounded(dimension.high))
    for value in dimension.choices or ends:
        field = dimension.name.removeprefix("model.lora.")
        if field != dimension.name:
            LoRAConfig(**{field: value})
        elif dimension.name == LR and not 0 < value < 1:
            raise ConfigError(tr("model.lr has {value}; it must be in (0, 1)", value=value))
        elif dimension.name != "model.optimizer" and not 0 <= value < math.inf:
            raise ConfigError(
                tr("{name} has {value}; it must be 0 or more", name=dimension.name, value=value)
            )
    return dimension
