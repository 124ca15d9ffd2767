"""Step times of all contenders on the same rows, one step each in turn."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.peers import ceiling, rows
from benchmarks.peers.contender import Contender, ContenderError
from benchmarks.peers.contenders import COMMANDS, COUNTED
from benchmarks.peers.rows import digest_of

Start = dict[str, tuple[list[str], dict[str, str]]]
"""The command of each contender, and its environment."""


def starts(names: list[str], steps: Path) -> Start:
    """Every contender's command on a file of steps, and the ceiling's."""
    counted = {name: {"LIT_LORA_BENCHMARK_FLOPS": "1"} for name in COUNTED}
    found: Start = {name: (COMMANDS[name](steps, 0.1), counted.get(name, {})) for name in names}
    return found | {"ceiling": ([sys.executable, "-m", "benchmarks.peers.ceiling"], {})}


def rounds(
    start: Start, steps: Path, folder: Path
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, float], dict[str, str]]:
    """Let every contender make one step in turn.

    Args:
        start: The contenders.
        steps: The rows of each step.
        folder: For the contenders' output.

    Returns:
        Each contender's cycles; the memory it began with, in MB; why one gave up.
    """
    planned, _ = rows.read(steps)
    cycles: dict[str, list[dict[str, Any]]] = {name: [] for name in start}
    failed: dict[str, str] = {}
    loaded: dict[str, float] = {}
    with ExitStack() as stack:
        running: dict[str, Contender] = {}
        # One after the other: two that load at once would slow each other.
        for name, (command, environment) in start.items():
            try:
                contender = Contender(command, folder / f"{steps.stem}.{name}.log", environment)
                running[name] = stack.enter_context(contender)
                loaded[name] = contender.request()["memory"]["now"]
            except (ContenderError, OSError) as error:
                failed[name] = str(error)
                running.pop(name, None)
        for number, step in enumerate(planned):
            order = list(running)
            # Whoever comes first in a round comes last in the next.
            turn = number % max(1, len(order))
            for name in order[turn:] + order[:turn]:
                try:
                    cycle = running[name].step()
                    if cycle.get("rows", digest_of(step)) != digest_of(step):
                        raise ContenderError(f"step {number + 1} had other rows")
                    cycles[name].append(cycle)
                except ContenderError as error:
                    failed[name] = str(error)
                    del running[name]
    return cycles, loaded, failed


def cell(start: Start, steps: Path, warm: int, folder: Path) -> dict[str, Any]:
    """One workload: every contender's seconds and memory, and why one has none.

    Args:
        start, steps, folder: As in ``rounds``.
        warm: How many of the first steps are left out of the times.
    """
    planned, _ = rows.read(steps)
    cycles, loaded, failed = rounds(start, steps, folder)
    return {
        "tokens": [step.tokens for step in planned],
        "padded": [len(step.ids) * max(map(len, step.ids)) for step in planned],
        "warm": warm,
        "failed": failed,
        "gflop_of_product": ceiling.GFLOP,
        "contenders": {
            name: {
                "seconds": [cycle["seconds"] for cycle in found],
                "losses": [cycle.get("loss") for cycle in found],
                "flops": next((c["flops"] for c in found if "flops" in c), None),
                "loaded_mb": loaded[name],
                "peak_mb": max(cycle["memory"]["peak"] for cycle in found),
            }
            for name, found in cycles.items()
            if len(found) > warm
        },
    }
