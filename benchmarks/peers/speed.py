"""Step times of all contenders on the same rows; they take turns, one step each."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.peers import ceiling, rows, step_gate
from benchmarks.peers.contender import Contender, ContenderError
from benchmarks.peers.contenders import COMMANDS, COUNTED
from benchmarks.peers.rows import digest_of

Starts = dict[str, tuple[list[str], dict[str, str]]]
"""The command of each contender, and its environment."""
BESIDE = ("ours", "ceiling")
"""What each contender takes turns with."""
TOGETHER = 1700
"""Padded tokens of a step up to which all contenders have room in 24 GB."""


def starts(names: list[str], steps: Path) -> Starts:
    """Return the command of each contender on a file of steps, and of the ceiling."""
    counting = {name: {step_gate.VARIABLE: "1"} for name in COUNTED}
    commands: Starts = {
        name: (COMMANDS[name](steps, 0.1), counting.get(name, {})) for name in names
    }
    return commands | {"ceiling": ([sys.executable, "-m", "benchmarks.peers.ceiling"], {})}


def run_rounds(
    commands: Starts, steps: Path, folder: Path
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, float], dict[str, str]]:
    """Let the contenders make one step each in turn.

    Args:
        commands: The contenders.
        steps: The rows of each step.
        folder: For the contenders' output.

    Returns:
        Each contender's reports; its memory before the first step, in MB; the reasons of those
        that failed.
    """
    planned, _ = rows.read(steps)
    reports: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
    failed: dict[str, str] = {}
    loaded: dict[str, float] = {}
    with ExitStack() as stack:
        running: dict[str, Contender] = {}
        # Start one after the other: two that load at once would slow each other.
        for name, (command, environment) in commands.items():
            try:
                contender = Contender(command, folder / f"{steps.stem}.{name}.log", environment)
                running[name] = stack.enter_context(contender)
                loaded[name] = contender.request()["memory"]["now"]
            except (ContenderError, OSError) as error:
                failed[name] = str(error)
                running.pop(name, None)
        for number, step in enumerate(planned):
            order = list(running)
            # The first of a round is the last of the next.
            first = number % max(1, len(order))
            for name in order[first:] + order[:first]:
                try:
                    report = running[name].step()
                    if report.get("rows", digest_of(step)) != digest_of(step):
                        raise ContenderError(f"step {number + 1} had other rows")
                    reports[name].append(report)
                except ContenderError as error:
                    failed[name] = str(error)
                    del running[name]
    return reports, loaded, failed


def measure(commands: Starts, steps: Path, warm: int, folder: Path) -> dict[str, Any]:
    """Measure one workload: seconds and memory of every contender, or why it failed.

    Where all together need too much memory, each takes turns with ours alone; those beyond the
    first are under ``apart``.

    Args:
        commands, steps, folder: As in ``run_rounds``.
        warm: How many of the first steps are left out of the times.
    """
    planned, _ = rows.read(steps)
    padded = max(len(step.ids) * max(map(len, step.ids)) for step in planned)
    peers = [name for name in commands if name not in BESIDE]
    together = peers if padded <= TOGETHER else peers[:1]
    cell = _measure(_beside(commands, together), steps, warm, folder)
    return cell | {
        "apart": {
            name: _measure(_beside(commands, [name]), steps, warm, folder)
            for name in peers
            if name not in together
        }
    }


def _beside(commands: Starts, peers: list[str]) -> Starts:
    return {name: how for name, how in commands.items() if name in (*BESIDE, *peers)}


def _measure(commands: Starts, steps: Path, warm: int, folder: Path) -> dict[str, Any]:
    """Measure contenders that take turns."""
    planned, _ = rows.read(steps)
    reports, loaded, failed = run_rounds(commands, steps, folder)
    return {
        "tokens": [step.tokens for step in planned],
        "padded": [len(step.ids) * max(map(len, step.ids)) for step in planned],
        "warm": warm,
        "failed": failed,
        "gflop_of_product": ceiling.GFLOP,
        "contenders": {
            name: {
                "seconds": [report["seconds"] for report in own],
                "losses": [report.get("loss") for report in own],
                "flops": next((report["flops"] for report in own if "flops" in report), None),
                "loaded_mb": loaded[name],
                "peak_mb": max(report["memory"]["peak"] for report in own),
            }
            for name, own in reports.items()
            if len(own) > warm
        },
    }
