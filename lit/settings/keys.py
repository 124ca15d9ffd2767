"""The keys of a YAML file, checked against the known settings before anything is parsed."""

import difflib
from collections.abc import Iterator
from pathlib import Path

import yaml

from lora.config import ConfigError


def check_keys(path: Path, known: list[str]) -> None:
    """Check that every key of a YAML file is known and appears once.

    Args:
        path: The file.
        known: The dotted names of all settings; keys below a setting are not checked.

    Raises:
        ConfigError: A key is wrong, with file, line and the nearest known name; or the file is not
            a YAML mapping.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), yaml.SafeLoader)
    except OSError:
        raise ConfigError(f"there is no config file {path}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path} must hold settings, like `model:` and below it `  base: …`")
    seen = set()
    for key, line in _keys(root, ""):
        if key in seen:
            raise ConfigError(f"{path}:{line}: {key} is set twice; remove one of them")
        seen.add(key)
        below = any(key.startswith(f"{name}.") for name in known)
        if not (key in known or below or any(name.startswith(f"{key}.") for name in known)):
            raise ConfigError(f"{path}:{line}: there is no setting {key}{nearest(key, known)}")


def _keys(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        yield name, key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            yield from _keys(value, f"{name}.")


def nearest(key: str, known: list[str]) -> str:
    """Return a guess at the intended key as the end of a message, or an empty text."""
    # The name may be right and its group wrong.
    moved = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    depth = key.count(".") + 1
    peers = {".".join(name.split(".")[:depth]) for name in known}
    guess = moved if len(moved) == 1 else difflib.get_close_matches(key, sorted(peers), 1, 0.6)
    if not guess:
        guess = difflib.get_close_matches(key, known, 1, 0.6)
    return f"; did you mean {guess[0]}?" if guess else ""
