"""The memory that ``lit.check`` estimates beside the peak that ``lit.fit`` reaches.

    OMP_NUM_THREADS=1 python benchmarks/memory_estimate.py

On the embedded model, in float32 on a CPU. Rows of one setting are equally long, so that each of
its few optimizer steps holds the largest micro-batch. Every estimate and every training is a
process of its own; the measure is the kernel's (ru_maxrss). Prints a Markdown table.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = "models/SmolLM2-135M-Instruct"
STEPS = 2
SETTINGS = {
    "batch 1, short rows": (40, ["--data.batch_size", "1"]),
    "batch 4": (150, ["--data.batch_size", "4"]),
    "max_tokens 2048": (200, ["--data.batch_size", "64", "--data.max_tokens", "2048"]),
    "max_tokens 2048, checkpointing": (
        200,
        [
            *("--data.batch_size", "64", "--data.max_tokens", "2048"),
            *("--model.gradient_checkpointing", "true"),
        ],
    ),
}
ESTIMATE = """
import json, sys
from lit.preflight.checkup import examine
from lit.settings.arguments import parse
estimate = examine(parse(sys.argv[1:])).estimate
print(json.dumps({"peak": estimate.peak, "parts": estimate.parts}))
"""
TRAIN = """
import json, sys
from lit.fit import main
from lit.run.memory import used
assert main(sys.argv[1:]) == 0
print(json.dumps({"peak": used()}))
"""


def write_rows(path: Path, words: int) -> None:
    """Rows of about as many tokens as words, half of them in the answer."""
    rows = [
        {"prompt": f"{i} " + "the " * (words // 2), "response": "a " * (words // 2)}
        for i in range(64)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run(program: str, arguments: list[str]) -> dict:
    """Run a program in a process of its own; its last line is its result."""
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
    """Measure every setting."""
    print(f"{platform.platform()}, Python {platform.python_version()}, {STEPS} optimizer steps\n")
    print("| setting | estimate, GB | measured, GB | estimate / measured |\n|---|---|---|---|")
    for name, (words, settings) in SETTINGS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.jsonl"
            write_rows(rows, words)
            arguments = [
                *("--model.base", MODEL, "--data.path", str(rows), "--data.val_fraction", "0"),
                *("--output_dir", str(Path(folder) / "run"), "--trainer.accelerator", "cpu"),
                *("--trainer.max_steps", str(STEPS), "--model.warmup", "0", *settings),
            ]
            estimate = run(ESTIMATE, arguments)
            measured = run(TRAIN, arguments)["peak"]
        peak = estimate["peak"]
        print(f"| {name} | {peak / 1e9:.2f} | {measured / 1e9:.2f} | {peak / measured:.2f} |")
        if "--parts" in os.environ.get("SHOW", ""):
            print(estimate["parts"])


if __name__ == "__main__":
    main()
