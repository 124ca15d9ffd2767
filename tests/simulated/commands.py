"""Run every command once on a tiny model, on this system or on a simulated one.

Usage: python tests/simulated/commands.py linux|windows|macos MODEL FOLDER
"""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

ROWS = [
    {"prompt": f"How warm must bed {i} be?", "response": f"Der Tisch ist {50 + i} °C warm — да…"}
    for i in range(12)
]


def commands(model: Path, folder: Path) -> dict[str, tuple[str, list[str]]]:
    """Return the module and the arguments of each command, by what it does."""
    rows, run, adapter = folder / "rows.jsonl", folder / "run", folder / "run" / "adapter"
    train = [
        *("--model.base", str(model), "--data.path", str(rows), "--output_dir", str(run)),
        *("--trainer.accelerator", "cpu", "--data.val_fraction", "0.25"),
        *("--data.batch_size", "2", "--checkpoint.every_n_train_steps", "2"),
        *("--model.lora.lora_dropout", "0.1", "--trainer.log_every_n_steps", "1"),
    ]
    written = ["--adapter", str(adapter)]
    return {
        "check": ("check", train),
        "fit": ("fit", [*train, "--trainer.max_epochs", "1"]),
        "overwrite": ("fit", [*train, "--trainer.max_epochs", "1", "--overwrite", "true"]),
        "resume": ("fit", [*train, "--trainer.max_epochs", "2", "--ckpt_path", "last"]),
        "compare": ("compare", [*written, "--max_new_tokens", "4"]),
        "compare again": ("compare", [*written, "--max_new_tokens", "4"]),
        "chat": ("chat", [*written, "--max_new_tokens", "4"]),
        "merge": ("merge", [*written, "--output_dir", str(folder / "merged"), "--ollama"]),
        "export peft": ("export", [*written, "--format", "peft", "--output", str(folder / "peft")]),
        "export gguf": (
            "export",
            [*written, "--format", "gguf", "--output", str(folder / "lora.gguf")],
        ),
    }


def run_commands(model: Path, folder: Path, names: set[str] | None = None) -> dict[str, int]:
    """Run commands in this process; return their exit codes."""
    import importlib

    from lit.train.sample_answers import SampleAnswers

    SampleAnswers.__init__.__defaults__ = (3, 4)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (folder / "rows.jsonl").write_bytes(text.encode())
    codes = {}
    for name, (module, arguments) in commands(model, folder).items():
        if names and name not in names:
            continue
        main: Callable[[list[str]], int] = importlib.import_module(f"lit.{module}").main
        print(f"== {name}", flush=True)
        sys.stdin = io.StringIO(f"Why is it warm?\n/save {folder / 'saved.jsonl'}\n/quit\n")
        try:
            codes[name] = main(arguments)
        except Exception:
            import traceback

            traceback.print_exc()
            codes[name] = 1
    return codes


if __name__ == "__main__":
    system, model, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    sys.path.insert(0, os.getcwd())
    if system != "linux":
        from systems import simulate

        simulate(system)
    codes = run_commands(model, folder, set(sys.argv[4:]))
    (folder / "codes.json").write_bytes(json.dumps(codes).encode())
