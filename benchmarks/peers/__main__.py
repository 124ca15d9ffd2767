"""Ours beside PEFT, TRL and LitGPT: make bench, or .venv-bench/bin/python -m benchmarks.peers

What was measured is in results.json at once, so that a run that was cut off goes on; the tables of
RESULTS.md are made of it.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers import generation, growth, parity, render, speed, startup, workloads
from benchmarks.peers.contender import ROOT
from benchmarks.peers.contenders import COMMANDS
from benchmarks.peers.results import Results, machine

WARM = 1
PARTS = ("speed", "parity", "growth", "startup", "generation")


def main(args: list[str] | None = None) -> int:
    """Measure what is asked for and not known yet, then write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--workloads", nargs="+", choices=workloads.WORKLOADS, default=list(workloads.WORKLOADS)
    )
    parser.add_argument("--modes", nargs="+", choices=workloads.MODES, default=workloads.MODES)
    parser.add_argument("--contenders", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a cell (5)")
    parser.add_argument("--repeats", type=int, default=3, help="of each start-up (3)")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=growth.ROWS, help="of data preparation (10² … 10⁶)"
    )
    parser.add_argument("--fresh", action="store_true", help="measure also what is known")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results.json")
    options = parser.parse_args(args)
    command = " ".join(["python -m benchmarks.peers", *(sys.argv[1:] if args is None else args)])
    results = Results(options.results, command, options.fresh)
    results.cells["machine"] = machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "speed" in options.parts:
            for key, mode in workloads.CELLS:
                if key in options.workloads and mode in options.modes:
                    work = partial(_speed, key, mode, options.steps, options.contenders, folder)
                    results.measure(f"speed/{key}/{mode}", work)
        if "parity" in options.parts:
            results.measure("parity/same", partial(parity.same_losses, folder))
            results.measure("parity/dropout", partial(parity.same_validation, folder))
        if "growth" in options.parts:
            for tokens in growth.TOKENS:
                work = partial(growth.step, tokens, folder)
                results.measure(f"growth/tokens/{tokens}", work)
            for count in options.rows:
                results.measure(f"growth/rows/{count}", partial(growth.data, count, folder))
        if "startup" in options.parts:
            work = partial(startup.measure, options.contenders, options.repeats, folder)
            results.measure("startup", work)
        if "generation" in options.parts:
            results.measure("generation", generation.measure)
    render.write(results.cells, options.results.parent)
    return 0


def _speed(key: str, mode: str, steps: int, names: list[str], folder: Path) -> dict[str, Any]:
    path = workloads.prepare(key, workloads.MODES[mode], WARM + steps, folder)
    return speed.cell(speed.starts(names, path), path, WARM, folder)


if __name__ == "__main__":
    sys.exit(main())
