"""Plant faults in the code and report which test finds each: python -m tests.mutants [AREA ...]

Each fault of the table is put into a copy of the project, alone, and its tests run until one fails.
If all of them pass, the other tests run too. A fault that no test finds is a hole in the tests.
Exit code 1: a fault was not found, or is invalid.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from tests.mutants.faults import Mutant, line_number, plant
from tests.mutants.one_pytest import PytestResult, run_pytest
from tests.mutants.table import MUTANTS

ROOT = Path(__file__).parents[2]
LIBRARIES = ("datasets", "hypothesis", "lightning", "matplotlib.pyplot", "peft", "transformers")
"""Imported once; every run of pytest is forked from the process that has them."""
LIMIT, SUITE_LIMIT = 300.0, 3600.0
"""Seconds for the tests of one fault, and for all other tests."""
OWN_TEST = "tests/test_mutants.py"
"""It finds every planted fault, as it compares the table with the files."""


class Outcome(NamedTuple):
    """What became of one fault."""

    mutant: Mutant
    line: int
    """Number of the line in the file."""
    killer: str
    """Node id of the test that failed; empty if there is none."""
    problem: str
    """SURVIVED, or INVALID with the reason; empty for a killed fault."""
    seconds: float
    broken: tuple[str, ...]
    """Tests that failed without the fault too."""


class Workplace:
    """A copy of the project in which one process plants faults, one at a time.

    Args:
        folder: A new folder for the copy and what its tests write.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.passing: set[str] = set()
        self.broken: set[str] = set()
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in names.split("\0")[:-1]:
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        for name in (".venv", "models"):
            if not (self.root / name).exists():
                (self.root / name).symlink_to((ROOT / name).resolve())

    def judge(self, mutant: Mutant, listed_only: bool) -> Outcome:
        """Plant a fault and run tests until one finds it; remove the fault."""
        start = time.monotonic()
        result = self._run(mutant, mutant.tests, LIMIT)
        if result == PytestResult() and not listed_only:
            others = ["tests", *(f"--deselect={test}" for test in (*mutant.tests, OWN_TEST))]
            result = self._run(mutant, others, SUITE_LIMIT)
        problem = f"INVALID: {result.invalid}" if result.invalid else ""
        if result == PytestResult():
            problem = "SURVIVED"
        killer = "".join(result.failed[:1])
        line, seconds = line_number(self.root, mutant), time.monotonic() - start
        return Outcome(mutant, line, killer, problem, seconds, tuple(sorted(self.broken)))

    def _run(self, mutant: Mutant, tests: Sequence[str], limit: float) -> PytestResult:
        """Return the first test that fails with the fault and passes without it."""
        path = self.root / mutant.file
        text = path.read_text(encoding="utf-8")
        faulty = plant(text, mutant)
        try:
            while True:
                path.write_text(faulty, encoding="utf-8")
                deselected = [f"--deselect={test}" for test in sorted(self.broken)]
                result = run_pytest(self.root, ["-x", *tests, *deselected], limit)
                if not result.failed or result.failed[0] in self.passing:
                    return result
                path.write_text(text, encoding="utf-8")
                if run_pytest(self.root, result.failed, limit) == PytestResult():
                    self.passing |= set(result.failed)
                    return result
                # There may be more of them, so all are looked for at once.
                clean = run_pytest(self.root, [*tests, *deselected], limit)
                self.broken |= {*result.failed, *clean.failed}
        finally:
            path.write_text(text, encoding="utf-8")


_workplace: Workplace


def _set_up(folder: str) -> None:
    global _workplace
    _workplace = Workplace(Path(tempfile.mkdtemp(dir=folder)))


def _judge(mutant: Mutant, listed_only: bool) -> Outcome:
    return _workplace.judge(mutant, listed_only)


def main() -> int:
    """Run the command."""
    areas = list(dict.fromkeys(mutant.area for mutant in MUTANTS))
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=f"of {', '.join(areas)}")
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at a time (2)")
    parser.add_argument(
        "--keep-going", action="store_true", help="continue after a fault that is not found"
    )
    parser.add_argument(
        "--listed-only", action="store_true", help="run only the tests that the table lists"
    )
    options = parser.parse_args()
    if unknown := sorted(set(options.areas) - set(areas)):
        parser.error(f"there is no area {unknown[0]}: choose from {', '.join(areas)}")
    mutants = [mutant for mutant in MUTANTS if mutant.area in (options.areas or areas)]
    # A stale .pyc file would hide a fault of the same size.
    sys.dont_write_bytecode = True
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in LIBRARIES:
        import_module(name)
    context = multiprocessing.get_context("fork")
    killed, broken, start = 0, set(), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="lit-lora-mutants-") as folder,
        ProcessPoolExecutor(options.jobs, context, _set_up, (folder,)) as pool,
    ):
        pending = [pool.submit(_judge, mutant, options.listed_only) for mutant in mutants]
        try:
            for future in pending:
                outcome = future.result()
                broken |= set(outcome.broken)
                killed += not outcome.problem
                _show(outcome)
                if outcome.problem and not options.keep_going:
                    break
        finally:
            pool.shutdown(cancel_futures=True)
    for test in sorted(broken):
        print(f"this test fails without a fault: {test}")
    print(f"{killed} of {len(mutants)} killed in {time.monotonic() - start:.0f} s")
    return 0 if killed == len(mutants) else 1


def _show(outcome: Outcome) -> None:
    mutant = outcome.mutant
    print(f"{mutant.area:<10} {mutant.file}:{outcome.line}  {mutant.line}")
    print(f"{'':<10} -> {mutant.replacement}")
    print(f"{'':<10} {outcome.problem or outcome.killer}  {outcome.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
