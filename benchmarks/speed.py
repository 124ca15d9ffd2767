"""Step times of all contenders on the same rows, one step each in turn."""

import sys
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import ceiling, rows
from benchmarks.contender import Contender, ContenderError
from benchmarks.contenders import COMMANDS, COUNTED
from benchmarks.rows import digest_of

Start = dict[str, tuple[list[str], dict[str, str]]]
"""The command of each contender, and its environment."""


def starts(names: list[str], steps: Path) -> Start:
    """Every contender's command on a file of steps, and the ceiling's."""
    counted = {name: {"LIT_LORA_BENCHMARK_FLOPS": "1"} for name in COUNTED}
    found: Start = {name: (COMMANDS[name](steps, 0.1), counted.get(name, {})) for name in names}
    return found | {"ceiling": ([sys.executable, "-m", "benchmarks.ceiling"], {})}


def cell(start: Start, steps: Path, warm: int, folder: Path) -> dict[str, Any]:
    """One workload: every contender's cycles, and why one has none.

    Args:
        start: The contenders.
        steps: The rows of each step.
        warm: How many of the first steps are left out of the times.
        folder: For the contenders' output.
    """
    planned, _ = rows.read(steps)
    cycles: dict[str, list[dict[str, Any]]] = defaultdict(list)
    failed: dict[str, str] = {}
    loaded: dict[str, float] = {}
    with ExitStack() as stack:
        running: dict[str, Contender] = {}
        # One after the other: two that load at once would slow each other.
        for name, (command, environment) in start.items():
            contender = Contender(command, folder / f"{steps.stem}.{name}.log", environment)
            running[name] = stack.enter_context(contender)
            try:
                loaded[name] = contender.request()["memory"]["now"]
            except ContenderError as error:
                failed[name] = str(error)
                del running[name]
        for number, step in enumerate(planned):
            order = list(running)
            # Whoever comes first in a round comes last in the next.
            turn = number % max(1, len(order))
            for name in order[turn:] + order[:turn]:
                try:
                    cycle = running[name].step()
                    if cycle.get("rows", digest_of(step)) != digest_of(step):
                        raise ContenderError(f"step {number} had other rows")
                    cycles[name].append(cycle)
                except ContenderError as error:
                    failed[name] = str(error)
                    del running[name]
    return {
        "tokens": [step.tokens for step in planned],
        "padded": [len(step.ids) * max(map(len, step.ids)) for step in planned],
        "warm": warm,
        "failed": failed,
        "gflop_of_product": ceiling.GFLOP,
        "contenders": {
            name: {
                "seconds": [cycle["seconds"] for cycle in cycles[name]],
                "losses": [cycle.get("loss") for cycle in cycles[name]],
                "flops": next((c["flops"] for c in cycles[name] if "flops" in c), None),
                "loaded_mb": loaded[name],
                "peak_mb": max(cycle["memory"]["peak"] for cycle in cycles[name]),
            }
            for name in start
            if name in loaded and cycles[name]
        },
    }
