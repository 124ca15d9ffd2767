"""Losses of ours and of PEFT: at each step, and on held-out rows after training with dropout."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import rows, speed, workloads
from benchmarks.peers.contenders import ours, peft
from benchmarks.peers.rows import Step
from benchmarks.peers.settings import PROJECTIONS, SEED
from lit.model.base import load_base
from lora.config import LoRAConfig
from lora.injection import inject
from lora.storage.adapter import save_adapter

STEPS = 20
HELD_OUT_STEPS = 2
"""The held-out rows are those of so many further steps."""


def compare_step_losses(folder: Path) -> dict[str, Any]:
    """Train both from the same adapter, without dropout."""
    path = workloads.prepare("b", workloads.MODES["batch 4"], STEPS, folder)
    adapter = save_initial_adapter(folder / "initial")
    commands: speed.Starts = {
        "ours": (ours(path, 0.0), {}),
        "peft": (peft(path, 0.0, ("--adapter", str(adapter))), {}),
    }
    reports = _train(commands, path, folder)
    losses = {name: [report["loss"] for report in own] for name, own in reports.items()}
    pairs = zip(losses["ours"], losses["peft"], strict=True)
    return {"steps": STEPS, "most_apart": max(abs(x - y) / y for x, y in pairs), "losses": losses}


def compare_validation(folder: Path) -> dict[str, Any]:
    """Train both with dropout 0.1, and compare their losses on held-out rows."""
    mode = workloads.MODES["batch 4"]
    path = workloads.prepare("a", mode, STEPS, folder)
    held = workloads.prepare("a", mode, HELD_OUT_STEPS, folder, skip=STEPS * mode["batch_size"])
    steps, settings = rows.read(held)
    # One batch: the Trainer's mean over batches weighs short batches as much as long ones.
    one = Step([i for s in steps for i in s.ids], [y for s in steps for y in s.labels])
    held_out = folder / "held_out.json"
    rows.write(held_out, [one], **settings)
    commands: speed.Starts = {
        "ours": (ours(path, 0.1, (f"--data.val_path={settings['data']}",)), {}),
        "peft": (peft(path, 0.1, ("--validate", str(held_out))), {}),
    }
    reports = _train(commands, path, folder)
    val = {name: own[-1]["val_loss"] for name, own in reports.items()}
    return {"steps": STEPS, "val_loss": val, "apart": abs(val["ours"] - val["peft"]) / val["peft"]}


def save_initial_adapter(folder: Path) -> Path:
    """Save the adapter that ours begins with; it depends on the seed alone."""
    model = load_base(workloads.MODEL, None, torch.float32, None, torch.device("cpu"))
    torch.manual_seed(SEED)
    inject(model, LoRAConfig(r=8, lora_alpha=32, target_modules=list(PROJECTIONS)))
    return save_adapter(model, folder, str(Path(workloads.MODEL).resolve()))


def _train(commands: speed.Starts, path: Path, folder: Path) -> dict[str, list[dict[str, Any]]]:
    reports, _, failed = speed.run_rounds(commands, path, folder)
    if failed:
        raise RuntimeError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
    return reports
