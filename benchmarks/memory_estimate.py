"""Compare the memory that lit.check estimates with the peak that lit.fit reaches.

    OMP_NUM_THREADS=1 python -m benchmarks.memory_estimate [--precision 32-true] ["batch 4" ...]

On the embedded model, on a CPU: equally long rows, and the workloads of make bench, of
which all rows train. Every estimate and every training is a process of its own; the measured peak
is the kernel's (ru_maxrss). Prints a Markdown table.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Importing the model's libraries here would count: a process begins with the peak of its parent.
MODEL = "models/SmolLM2-135M-Instruct"
STEPS = 3
BUDGET = ("--data.batch_size", "64", "--data.max_tokens", "2048")
EQUAL_ROWS: dict[str, tuple[int, tuple[str, ...]]] = {
    "batch 1, short rows": (40, ("--data.batch_size", "1")),
    "batch 4": (150, ("--data.batch_size", "4")),
    "max_tokens 2048": (200, BUDGET),
    "max_tokens 2048, checkpointing": (200, (*BUDGET, "--model.gradient_checkpointing", "true")),
}
"""The tokens of a row, roughly, and the settings."""
WORKLOADS = [f"{key}, {mode}" for key in "abcdefg" for mode in ("batch 4", "budget 1024")]
"""Keys of ``benchmarks.peers.workloads``."""
PREPARE = """
import json, sys
from pathlib import Path
from typing import Any
from benchmarks.peers.rows import read
from benchmarks.peers.workloads import WORKLOADS, prepare
key, mode, steps, folder = sys.argv[1:]
settings = WORKLOADS[key].settings(mode)
_, written = read(prepare(key, settings, int(steps), Path(folder)))
data = [f"--data.{name}={value}".lower() for name, value in settings.items()]
print(json.dumps([f"--data.path={written['data']}", *data]))
"""
ESTIMATE = """
import sys
from lit.preflight.checkup import examine
from lit.settings.arguments import parse
print(examine(parse(sys.argv[1:])).estimate.peak)
"""
TRAIN = """
import sys
from lit.fit import main
from lit.device.memory import peak_memory
assert main(sys.argv[1:]) == 0
print(peak_memory())
"""


def data_settings(name: str, folder: Path) -> list[str]:
    """Write the rows of a setting, and return the settings of ``data.``."""
    if name in WORKLOADS:
        settings: list[str] = run(PREPARE, [*name.split(", "), str(STEPS), str(folder)])
        return settings
    tokens, more = EQUAL_ROWS[name]
    half, path = tokens // 2, folder / "rows.jsonl"
    rows = [{"prompt": f"{i} " + "the " * half, "response": "a " * half} for i in range(64)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [f"--data.path={path}", *more]


def run(program: str, arguments: list[str]) -> Any:
    """Run a program in a process of its own; return what its last line holds."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure the settings named on the command line, or all."""
    known = [*EQUAL_ROWS, *WORKLOADS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory_estimate")
    parser.add_argument("settings", nargs="*", choices=[*known, []], metavar="SETTING")
    parser.add_argument("--precision", default="32-true", help="trainer.precision (32-true)")
    options = parser.parse_args()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {STEPS} optimizer steps, "
        f"{options.precision}\n"
    )
    print("| setting | estimate, GB | measured, GB | estimate / measured |\n|---|---|---|---|")
    for name in options.settings or known:
        with tempfile.TemporaryDirectory() as folder:
            arguments = [
                *("--model.base", MODEL, *data_settings(name, Path(folder))),
                *("--data.val_fraction", "0", "--output_dir", str(Path(folder) / "run")),
                *("--trainer.accelerator", "cpu", "--model.warmup", "0"),
                *("--trainer.max_steps", str(STEPS), "--trainer.precision", options.precision),
            ]
            estimate, peak = run(ESTIMATE, arguments), run(TRAIN, arguments)
        ratio = estimate / peak
        print(f"| {name} | {estimate / 1e9:.2f} | {peak / 1e9:.2f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
