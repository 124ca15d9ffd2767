"""The times of products on this machine: measured once, and kept in a file.

What a run computes with decides its last bits. So that two runs of the same settings have the same
bits, the choice must not depend on what else the machine did when a run started.
"""

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME

from lit.device.device import cpu_name
from lit.fast_layers.product_times import Shapes, Times, time_products, ways_here
from lora.storage.files import temporary_path

FOLDER = Path(HF_HOME) / "lit-lora" / "products"
"""Where the times of this machine are kept."""
VERSION = 2
"""Of what is timed; older times are not read."""
FEWEST_WEIGHTS = 10_000_000
"""Weights of linear layers below which nothing is timed: such steps are short in any case."""


def are_large(shapes: Shapes) -> bool:
    """Return whether layers are large enough to be timed."""
    return sum(outputs * inputs * layers for outputs, inputs, layers in shapes) >= FEWEST_WEIGHTS


@cache
def product_times(shapes: Shapes) -> Times:
    """Return how long this machine takes for the products of layers, as it was first measured.

    Args:
        shapes: Those of the layers.

    Returns:
        As ``time_products``; also empty if the layers are small.
    """
    if not are_large(shapes):
        return {}
    facts = {
        "version": VERSION,
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "ways": ways_here(),
        "shapes": shapes,
    }
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    path = FOLDER / f"{digest[:32]}.json"
    if (known := _read(path)) is not None:
        return known
    measured = time_products(shapes)
    _write_first(path, json.dumps(facts | {"seconds": measured}, indent=2) + "\n")
    # Another process of the run may have been the first.
    known = _read(path)
    return measured if known is None else known


def _read(path: Path) -> Times | None:
    """Return the times in a file, or None if there is none that can be read."""
    try:
        seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"]
        return {str(way): float(value) for way, value in seconds.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _write_first(path: Path, text: str) -> None:
    """Write a file unless there is one; a machine whose folder cannot be written to times again."""
    new = temporary_path(path)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            new.write_text(text, encoding="utf-8")
            # Unlike renaming, a link fails where there is a file already.
            os.link(new, path)
        finally:
            new.unlink(missing_ok=True)
