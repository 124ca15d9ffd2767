"""Module paths and the names that match them: ``q_proj`` matches ``layers.0.self_attn.q_proj``."""

from collections.abc import Iterable, Iterator


def ends_with(path: str, name: str) -> bool:
    """Return whether a module path ends with a name, at a dot."""
    return path == name or path.endswith("." + name)


def is_inside(path: str, part: str) -> bool:
    """Return whether a module lies in a part of a model; the empty path is the whole model."""
    return not part or path == part or path.startswith(part + ".")


def path_suffixes(path: str) -> Iterator[str]:
    """Yield every name that matches a path, the shortest first."""
    parts = path.split(".")
    return (".".join(parts[-length:]) for length in range(1, len(parts) + 1))


def index_by_suffix(paths: Iterable[str]) -> dict[str, set[str]]:
    """Return the paths that each name matches, so that looking up many names stays fast."""
    index: dict[str, set[str]] = {}
    for path in paths:
        for suffix in path_suffixes(path):
            index.setdefault(suffix, set()).add(path)
    return index


def last_names(paths: Iterable[str]) -> str:
    """Return the last name of each path once, sorted, as one comma-separated text."""
    return ", ".join(sorted({path.rpartition(".")[2] for path in paths}))
