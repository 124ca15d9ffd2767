"""The contenders: how each is started on a file of steps."""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers import rows
from benchmarks.peers.contender import ROOT
from benchmarks.peers.settings import fit_arguments

LITGPT = ".venv-bench-litgpt/bin/python"
CHECKPOINT = ".venv-bench-litgpt/checkpoint/SmolLM2-135M-Instruct"
"""The model in LitGPT's format; ``make bench`` converts it."""
Command = Callable[[Path, float], list[str]]


def ours(steps: Path, dropout: float = 0.1, extra: tuple[str, ...] = ()) -> list[str]:
    """Return the command of lit.fit, on the file the steps were planned from, behind the gate."""
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
    """Return the command of PEFT with Hugging Face's Trainer."""
    return [sys.executable, *_module("peft", steps, dropout), *extra]


def trl(steps: Path, dropout: float = 0.1) -> list[str]:
    """Return the command of TRL's SFTTrainer."""
    return [sys.executable, *_module("trl", steps, dropout)]


def litgpt(steps: Path, dropout: float = 0.1) -> list[str]:
    """Return the command of LitGPT's finetune_lora."""
    return [str(ROOT / LITGPT), *_module("litgpt", steps, dropout), f"--checkpoint={CHECKPOINT}"]


def _module(name: str, steps: Path, dropout: float) -> list[str]:
    return ["-m", f"benchmarks.peers.contender_{name}", str(steps), f"--dropout={dropout}"]


COMMANDS: dict[str, Command] = {"ours": ours, "peft": peft, "trl": trl, "litgpt": litgpt}
TITLES = {"ours": "ours", "peft": "PEFT + Trainer", "trl": "TRL", "litgpt": "LitGPT"}
COUNTED = ("ours", "peft")
"""Contenders whose operations are counted in the first step."""
