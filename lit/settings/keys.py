"""The keys of a YAML file, checked against the known settings before anything is parsed."""

import difflib
from collections.abc import Iterator
from pathlib import Path

import yaml

from lit.messages import tr
from lit.settings.other_names import SETTINGS
from lora.config import ConfigError

MAX_BYTES = 1 << 20


def check_keys(path: Path, known: list[str]) -> None:
    """Check that every key of a YAML file is known and appears once.

    Args:
        path: The file.
        known: The dotted names of all settings; keys below a setting are not checked.

    Raises:
        ConfigError: A key is wrong, with file, line and the nearest known name; or the file is not
            a YAML mapping.
    """
    if path.exists() and not path.is_file():
        raise ConfigError(tr("{path} is not a regular file: give a file of settings", path=path))
    if path.is_file() and (size := path.stat().st_size) > MAX_BYTES:
        raise ConfigError(
            tr(
                "{path} has {size} bytes; a config file has at most {max_bytes}",
                path=path,
                size=size,
                max_bytes=MAX_BYTES,
            )
        )
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), yaml.SafeLoader)
        if root is not None:
            _check_aliases(path, root)
    except RecursionError:
        raise ConfigError(tr("{path} is nested too deeply", path=path)) from None
    except OSError:
        raise ConfigError(tr("there is no config file {path}", path=path)) from None
    except UnicodeDecodeError:
        raise ConfigError(tr("{path} is not UTF-8; save it as UTF-8", path=path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(
            tr("{where}: not YAML: {error}", where=where, error=getattr(error, "problem", error))
        ) from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            tr("{path} must hold settings, like `model:` and below it `  base: …`", path=path)
        )
    seen = set()
    for key, line in _keys(root, ""):
        if key in seen:
            raise ConfigError(
                tr(
                    "{path}:{line}: {key} is set twice; remove one of them",
                    path=path,
                    line=line,
                    key=key,
                )
            )
        seen.add(key)
        below = any(key.startswith(f"{name}.") for name in known)
        if not (key in known or below or any(name.startswith(f"{key}.") for name in known)):
            raise ConfigError(
                tr(
                    "{path}:{line}: there is no setting {key}{nearest}",
                    path=path,
                    line=line,
                    key=key,
                    nearest=nearest(key, known),
                )
            )


def _check_aliases(path: Path, root: yaml.Node) -> None:
    """Check that no block is used twice.

    A few lines of aliases of aliases are a tree without an end, or with more leaves than atoms.
    """
    seen: set[int] = set()
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if not isinstance(node, yaml.CollectionNode) or not node.value:
            continue
        if id(node) in seen:
            raise ConfigError(
                tr(
                    "{path}:{line}: an alias repeats this block: write it out",
                    path=path,
                    line=node.start_mark.line + 1,
                )
            )
        seen.add(id(node))
        for child in node.value:
            nodes += child if isinstance(child, tuple) else (child,)


def _keys(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        yield name, key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode):
            yield from _keys(value, f"{name}.")


def nearest(key: str, known: list[str]) -> str:
    """Return a guess at the intended key as the end of a message, or an empty text.

    The last part of the key is compared with the last parts of all settings and groups, and with
    other trainers' names for them: the group before it may be wrong.
    """
    guess = _guess(key, known)
    return tr("; did you mean {guess}?", guess=guess) if guess else ""


def _guess(key: str, known: list[str]) -> str:
    groups = {
        ".".join(name.split(".")[:n]) for name in known for n in range(1, name.count(".") + 1)
    }
    by_last: dict[str, list[str]] = {}
    for name in sorted({*known, *groups}):
        by_last.setdefault(name.rpartition(".")[2], []).append(name)
    for other, setting in SETTINGS.items():
        by_last.setdefault(other, [setting])
    last = key.rpartition(".")[2]
    same = [name for name in by_last if _letters(name) == _letters(last)]
    close = difflib.get_close_matches(last.lower(), by_last, 3, 0.7)
    scores = {
        name: _likeness(last, found) + _likeness(key, name)
        for found in (same or close)
        for name in by_last[found]
    }
    if scores:
        return max(scores, key=scores.__getitem__)
    return next(iter(difflib.get_close_matches(key, [*known, *groups], 1, 0.6)), "")


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
