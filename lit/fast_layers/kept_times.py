"""The times of products on this machine: measured once, and kept in a file.

What a run computes with decides its last bits. So that two runs of the same settings have the same
bits, the choice must not depend on what else the machine did when a run started. Times that were
measured beside other programs can be ten times too long, for one way more than for another: they
are kept for minutes only, so that all processes of a run take the same.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from huggingface_hub.constants import HF_HOME

from lit.device.device import cpu_name
from lit.device.load import free_cores, watching_others
from lit.fast_layers.product_times import Shapes, Times, time_products, ways_here
from lit.messages import tr
from lit.run.console import print_rank0
from lora.storage.files import temporary_path

FOLDER = Path(HF_HOME) / "lit-lora" / "products"
"""Where the times of this machine are kept."""
VERSION = 3
"""Of what is timed; older times are not read."""
BUSY_SECONDS = 600
"""Times of a busy machine are taken for at least so long, and less than twice as long."""
TRIES = 2
"""Measurements, as long as the machine is busy: many programs take a second."""
TAKEN = 0.25
"""So much of a core may be missing on a machine that is not busy; clocks are coarse."""
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
    period = int(time.time() // BUSY_SECONDS)
    busy = [FOLDER / f"{digest[:32]}.busy-{number}.json" for number in (period, period - 1)]
    if (known := _read_first(busy)) is None:
        measured, free = _measure(shapes)
        path = path if free >= torch.get_num_threads() - TAKEN else busy[0]
        _write_first(path, json.dumps(facts | {"seconds": measured}, indent=2) + "\n")
        # Another process of the run may have been the first.
        known = _read(path) or measured
        if path not in busy:
            return known
    print_rank0(
        tr(
            "model  other programs kept this CPU busy when its products were timed: what it "
            "computes with may not be the fastest, and is measured again in a later run"
        ),
        note=True,
    )
    return known


def _measure(shapes: Shapes) -> tuple[Times, float]:
    """Return the times of products, and how many cores other programs left meanwhile."""
    for _ in range(TRIES):
        with watching_others() as busy_cores:
            measured = time_products(shapes)
            free = free_cores(busy_cores())
        if free >= torch.get_num_threads() - TAKEN:
            break
    return measured, free


def _read_first(paths: Iterable[Path]) -> Times | None:
    return next((times for path in paths if (times := _read(path)) is not None), None)


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
