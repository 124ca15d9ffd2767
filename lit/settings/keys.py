"""The keys of a YAML file, held against those that exist, before anything is parsed."""

import difflib
from collections.abc import Iterator
from pathlib import Path

import yaml

from lora.config import ConfigError


def check_keys(path: Path, known: list[str]) -> None:
    """Look for keys in a YAML file that are unknown, or there twice.

    Args:
        path: The file.
        known: The dotted names of all settings; below a setting anything goes.

    Raises:
        ConfigError: With file, line and the nearest known name; or the file is no YAML mapping.
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
            raise ConfigError(f"{path}:{line}: {key} is there twice")
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
    """A guess at what a wrong key was meant to be, to put behind a message; or nothing."""
    # A name can be right and stand in the wrong group.
    moved = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    depth = key.count(".") + 1
    peers = {".".join(name.split(".")[:depth]) for name in known}
    guess = moved if len(moved) == 1 else difflib.get_close_matches(key, sorted(peers), 1, 0.6)
    if not guess:
        guess = difflib.get_close_matches(key, known, 1, 0.6)
    return f"; did you mean {guess[0]}?" if guess else ""
