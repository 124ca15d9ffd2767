"""Short names of layers in an adapter's settings."""

from collections.abc import Iterable

from torch import nn

from lora.layer import Adapter
from lora.paths import ends_with, path_suffixes


def shortest_names(model: nn.Module, selected: set[str], excluded: Iterable[str] = ()) -> list[str]:
    """Return the shortest path suffixes that match the selected layers and no others.

    Args:
        model: A model with adapters.
        selected: Paths of layers.
        excluded: Names of further layers that a suffix may match.
    """
    # GPT-2 has a c_proj in attention and one in the MLP: for the first, attn.c_proj is written.
    inside = tuple(f"{path}." for path, m in model.named_modules() if isinstance(m, Adapter))
    others = {
        suffix
        for path, _ in model.named_modules()
        if path not in selected
        and not path.startswith(inside)
        and not any(ends_with(path, name) for name in excluded)
        for suffix in path_suffixes(path)
    }
    return sorted(
        {
            next(suffix for suffix in path_suffixes(path) if suffix not in others)
            for path in selected
        }
    )
