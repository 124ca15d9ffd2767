"""Time the parts of a quickstart: python -m benchmarks.whole_run [--install] [--config FILE]

Runs lit.check, lit.fit and lit.compare as a person does, each in a process of its own, and prints a
Markdown table of their wall seconds, part by part, and of each command's processor seconds. A part
begins where the command prints the line that the table PARTS names.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

if sys.platform == "win32":
    sys.exit("benchmarks.whole_run reads processor seconds, which Windows does not give")
import resource

from lit.quickstart import BATCH

ROOT = Path(__file__).parents[1]
STEPS, VALIDATION = "lit.fit: optimizer steps", "lit.fit: validation"
TRAINING = "both"
"""Optimizer steps and validation take turns; what the steps took is in a line at the end."""
TAKEN = re.compile(r"run .* tokens in (?:(\d+) min ?)?(?:(\d+) s)?")
PARTS = {
    "lit.check": {"": "lit.check"},
    "lit.fit": {
        "": "lit.fit: start",
        "data ": "lit.fit: rows, plan and checks",
        "model  loading": "lit.fit: load the model, measure the base",
        "step 0 ": TRAINING,
        "model  ": "lit.fit: write the adapter",
    },
    "lit.compare": {"": "lit.compare: start", "budget": "lit.compare: losses and answers"},
}
"""For each command: how a line begins, and the part that begins with it. "" is the start."""


def run(command: Sequence[str], module: str, seconds: dict[str, float]) -> float:
    """Run a command, add the wall seconds of its parts; return its processor seconds.

    Raises:
        CalledProcessError: It failed.
    """
    parts = PARTS[module]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    part, since = parts[""], time.perf_counter()
    english = {"LANGUAGE": "en", "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | english, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            began = next((name for key, name in parts.items() if key and line.startswith(key)), "")
            now = time.perf_counter()
            seconds[part] += now - since
            part, since = began or part, now
            if found := TAKEN.match(line):
                minutes, rest = (int(value or 0) for value in found.groups())
                seconds[STEPS] = 60.0 * minutes + rest
                seconds[VALIDATION] = seconds.pop(TRAINING) - seconds[STEPS]
        code = process.wait()
    seconds[part] += time.perf_counter() - since
    if code:
        raise subprocess.CalledProcessError(code, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def install(folder: Path) -> float:
    """Install the project into a new environment; return the wall seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    # As in the Makefile.
    written = [] if os.environ.get("PYTHONDONTWRITEBYTECODE") else ["--no-compile"]
    wanted = [*written, "-c", "constraints.txt", "-e", ".[quickstart]"]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], cwd=ROOT, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_run")
    parser.add_argument("--install", action="store_true", help="into a new environment, timed")
    parser.add_argument("--config", default="configs/quickstart.yaml")
    options, more = parser.parse_known_args()
    seconds: dict[str, float] = defaultdict(float)
    processor: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.install:
            seconds["install"] = install(folder / "environment")
        # The rows are tokenized in this run, as in a fresh clone.
        os.environ["HF_DATASETS_CACHE"] = str(folder / "cache")
        out, adapter = str(folder / "run"), str(folder / "run" / "adapter")
        train = ["--config", options.config, "--output_dir", out, *more]
        for module, given in (
            ("lit.check", train),
            ("lit.fit", train),
            ("lit.compare", ["--adapter", adapter, "--batch_size", BATCH]),
        ):
            processor[module] = run([sys.executable, "-m", module, *given], module, seconds)
    print("| part | wall, s | share |\n|---|---|---|")
    total = sum(seconds.values())
    for part, spent in [*seconds.items(), ("in all", total)]:
        print(f"| {part} | {spent:.1f} | {spent / total:.0%} |")
    print(", ".join(f"{module}: {spent:.1f} s" for module, spent in processor.items()), end="")
    print(" of processor time")


if __name__ == "__main__":
    main()
