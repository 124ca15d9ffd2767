"""Which operations of torch have a kernel on MPS, by the table that torch was generated from."""

import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml


@cache
def table() -> dict[str, dict]:
    """Return torch's entry of each operation, by its name without arguments."""
    found = find_spec("torchgen")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "packaged" / "ATen" / "native"
    text = (folder / "native_functions.yaml").read_text("utf-8")
    entries = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {entry["func"].partition("(")[0]: entry for entry in entries}


def has_mps_kernel(name: str) -> bool:
    """Return whether an operation such as ``add.Tensor`` runs on MPS."""
    entry = table()[name]
    if delegate := entry.get("structured_delegate"):
        return has_mps_kernel(delegate)
    dispatch = entry.get("dispatch")
    if dispatch is None:
        return True  # composed of other operations
    keys = {key for keys in dispatch for key in re.split(r",\s*", keys)}
    return any(key == "MPS" or key.startswith("Composite") for key in keys)


def without_mps_kernel(names: Iterable[str]) -> list[str]:
    """Return those operations of torch's own that do not run on MPS."""
    own = [name.removeprefix("aten::") for name in names if name.startswith("aten::")]
    known = {name.removesuffix(".default") for name in own}
    return sorted(name for name in known if not has_mps_kernel(name))
