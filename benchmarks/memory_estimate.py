"""Compare the memory that lit.check estimates with the peak that lit.fit reaches.

    OMP_NUM_THREADS=1 python -m benchmarks.memory_estimate ["batch 4" ...]

On the embedded model, in float32 on a CPU. The rows of one setting are equally long, so that each
of its few optimizer steps has the largest micro-batch. Every estimate and every training is a
process of its own; the measured peak is the kernel's (ru_maxrss). Prints a Markdown table.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.embedded_model import MODEL

ROOT = Path(__file__).resolve().parents[1]
STEPS = 2
BUDGET = ("--data.batch_size", "64", "--data.max_tokens", "2048")
SETTINGS: dict[str, tuple[int, tuple[str, ...]]] = {
    "batch 1, short rows": (40, ("--data.batch_size", "1")),
    "batch 4": (150, ("--data.batch_size", "4")),
    "max_tokens 2048": (200, BUDGET),
    "max_tokens 2048, checkpointing": (200, (*BUDGET, "--model.gradient_checkpointing", "true")),
}
"""The tokens of a row, roughly, and the settings."""
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


def write_rows(path: Path, tokens: int) -> None:
    """Write 64 rows of about that many tokens, half of them in the answer."""
    half = tokens // 2
    rows = [{"prompt": f"{i} " + "the " * half, "response": "a " * half} for i in range(64)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(program: str, arguments: list[str]) -> int:
    """Run a program in a process of its own; return the number that its last line holds."""
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
    return int(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure the settings named on the command line, or all."""
    print(f"{platform.platform()}, Python {platform.python_version()}, {STEPS} optimizer steps\n")
    print("| setting | estimate, GB | measured, GB | estimate / measured |\n|---|---|---|---|")
    for name in sys.argv[1:] or SETTINGS:
        tokens, settings = SETTINGS[name]
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.jsonl"
            write_rows(rows, tokens)
            arguments = [
                *("--model.base", MODEL, "--data.path", str(rows), "--data.val_fraction", "0"),
                *("--output_dir", str(Path(folder) / "run"), "--trainer.accelerator", "cpu"),
                *("--trainer.max_steps", str(STEPS), "--model.warmup", "0", *settings),
            ]
            estimate, peak = run(ESTIMATE, arguments), run(TRAIN, arguments)
        print(f"| {name} | {estimate / 1e9:.2f} | {peak / 1e9:.2f} | {estimate / peak:.2f} |")


if __name__ == "__main__":
    main()
