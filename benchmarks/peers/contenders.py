"""The contenders: how each is started on a file of steps."""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import rows
from benchmarks.peers.contender import ROOT
from benchmarks.peers.settings import fit_arguments

LITGPT = ".venv-bench-litgpt/bin/python"
CHECKPOINT = ".venv-bench-litgpt/checkpoint/SmolLM2-135M-Instruct"
"""The model as LitGPT has it; ``make bench`` converts it."""
Command = Callable[[Path, float], list[str]]


def ours(steps: Path, dropout: float = 0.1, extra: tuple[str, ...] = ()) -> list[str]:
    """lit.fit itself on the file the steps were planned from, with the gate as a callback."""
    planned, settings = rows.read(steps)
    data = {"path": settings["data"], "val_fraction": 0, **settings["settings"]}
    return [
        *(sys.executable, "-m", "lit.fit", f"--model.base={settings['model']}"),
        *(f"--data.{name}={value}" for name, value in data.items()),
        *fit_arguments(dropout),
        *("--trainer.max_epochs=1", f"--trainer.max_steps={len(planned)}"),
        *("--trainer.accelerator=cpu", "--force=true", "--overwrite=true"),
        f"--output_dir={steps.with_suffix('.run')}",
        "--trainer.callbacks+=benchmarks.peers.gate_lightning.Gated",
        *extra,
    ]


def peft(steps: Path, dropout: float = 0.1, extra: tuple[str, ...] = ()) -> list[str]:
    """PEFT with Hugging Face's Trainer."""
    own = ["benchmarks.peers.contender_peft", str(steps), f"--dropout={dropout}"]
    return [sys.executable, "-m", *own, *extra]


def trl(steps: Path, dropout: float = 0.1) -> list[str]:
    """TRL's SFTTrainer."""
    own = ["benchmarks.peers.contender_trl", str(steps), f"--dropout={dropout}"]
    return [sys.executable, "-m", *own]


def litgpt(steps: Path, dropout: float = 0.1) -> list[str]:
    """LitGPT's finetune_lora."""
    own = ["benchmarks.peers.contender_litgpt", str(steps), f"--checkpoint={CHECKPOINT}"]
    return [str(ROOT / LITGPT), "-m", *own, f"--dropout={dropout}"]


COMMANDS: dict[str, Command] = {"ours": ours, "peft": peft, "trl": trl, "litgpt": litgpt}
TITLES = {"ours": "ours", "peft": "PEFT + Trainer", "trl": "TRL", "litgpt": "LitGPT"}
COUNTED = ("ours", "peft")
"""Of these the arithmetic of the first step is counted."""
