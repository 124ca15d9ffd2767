"""Seconds from a command to its first training step, or to ``--help``, and of the bare imports."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import workloads
from benchmarks.peers.contender import ROOT, Contender
from benchmarks.peers.contenders import COMMANDS, LITGPT

LIGHTNING = "import torch, lightning.pytorch, transformers, datasets"
HUGGING_FACE = "import torch, datasets, accelerate, peft; from transformers import Trainer"
LOAD = (
    "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
    f"M.from_pretrained('{workloads.MODEL}', dtype=torch.float32); "
    f"T.from_pretrained('{workloads.MODEL}')"
)
PROGRAMS = {
    "lit.fit --help": ["-m", "lit.fit", "--help"],
    "lit.fit --help: bare imports": ["-c", "import jsonargparse, lightning.pytorch.cli"],
    "lit.chat --help": ["-m", "lit.chat", "--help"],
    "lit.chat --help: bare imports": ["-c", "import argparse"],
    "first step, ours: bare imports": ["-c", LIGHTNING],
    "first step, ours: bare imports and weights": ["-c", f"{LIGHTNING}; {LOAD}"],
    "first step, peft: bare imports and weights": ["-c", f"{HUGGING_FACE}; {LOAD}"],
}
"""Python programs that run to their end."""


def measure(names: list[str], repeats: int, folder: Path) -> dict[str, Any]:
    """Measure every start in turn; the first round only warms caches.

    Python writes the compiled modules of a clone in that round, as on any person's machine, also
    where the environment of this process forbids it.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    path = workloads.prepare("a", workloads.MODES["batch 4"], 1, folder)
    seconds: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for repeat in range(repeats + 1):
        for title, arguments in PROGRAMS.items():
            taken = _time_program([sys.executable, *arguments])
            seconds.setdefault(title, []).extend([taken] if repeat else [])
        for name in names:
            title = f"first step, {name}"
            if title in failed:
                continue
            try:
                taken = _time_first_step(COMMANDS[name](path, 0.1), folder / f"{name}.log")
            except (RuntimeError, OSError) as error:
                failed[title] = str(error)
                continue
            seconds.setdefault(title, []).extend([taken] if repeat else [])
    medians = {title: float(np.median(times)) for title, times in seconds.items() if times}
    return {"seconds": seconds, "medians": medians, "failed": failed, "litgpt": LITGPT}


def _time_first_step(command: list[str], log: Path) -> float:
    with Contender(command, log) as contender:
        contender.request()
        return time.perf_counter() - contender.started


def _time_program(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=os.environ, check=True, capture_output=True)
    return time.perf_counter() - start
