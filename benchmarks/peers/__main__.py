"""Compare ours with PEFT, TRL and LitGPT: make bench, or .venv-bench/bin/python -m benchmarks.peers

Every measurement is written to results.json at once, so an interrupted run continues with the next
one. The tables of RESULTS.md are made from results.json.
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers import growth, parity, render, speed, startup, workloads
from benchmarks.peers.contender import ROOT
from benchmarks.peers.contenders import COMMANDS
from benchmarks.peers.results import Results

WARM = 1
"""Steps that are not timed."""
PARTS = ("speed", "parity", "growth", "startup")


def main(args: list[str] | None = None) -> int:
    """Measure what is asked for and not in results.json yet, then write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--workloads", nargs="+", choices=workloads.WORKLOADS, default=list(workloads.WORKLOADS)
    )
    parser.add_argument("--modes", nargs="+", choices=workloads.MODES, default=workloads.MODES)
    parser.add_argument("--contenders", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a cell (5)")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each start (3)")
    parser.add_argument(
        "--rows", type=int, nargs="+", default=growth.ROWS, help="rows to prepare (10² … 10⁶)"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="forget results.json and measure everything again"
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results.json")
    options = parser.parse_args(args)
    command = " ".join(["python -m benchmarks.peers", *(sys.argv[1:] if args is None else args)])
    results = Results(options.results, command, options.fresh)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "speed" in options.parts:
            for key, mode in workloads.CELLS:
                if key in options.workloads and mode in options.modes:
                    work = partial(_speed, key, mode, options.steps, options.contenders, folder)
                    results.measure(f"speed/{key}/{mode}", work)
        if "parity" in options.parts:
            results.measure("parity/same", partial(parity.compare_step_losses, folder))
            results.measure("parity/dropout", partial(parity.compare_validation, folder))
        if "growth" in options.parts:
            for tokens in growth.TOKENS:
                work = partial(growth.measure_step, tokens, folder)
                results.measure(f"growth/tokens/{tokens}", work)
            for count in options.rows:
                results.measure(f"growth/rows/{count}", partial(growth.measure_data, count, folder))
        if "startup" in options.parts:
            work = partial(startup.measure, options.contenders, options.repeats, folder)
            results.measure("startup", work)
    render.write(results.cells, options.results.parent)
    return 0


def _speed(key: str, mode: str, steps: int, names: list[str], folder: Path) -> dict[str, Any]:
    path = workloads.prepare(key, workloads.WORKLOADS[key].settings(mode), WARM + steps, folder)
    return speed.measure(speed.starts(names, path), path, WARM, folder)


if __name__ == "__main__":
    sys.exit(main())
