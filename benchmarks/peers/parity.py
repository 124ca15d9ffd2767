"""The loss of each step beside PEFT's, and the validation loss after an epoch with dropout."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import rows, speed, workloads
from benchmarks.peers.contenders import ours, peft
from benchmarks.peers.rows import Step
from benchmarks.peers.settings import PROJECTIONS, SEED
from lit.model.base import load_base
from lora.adapter import save_adapter
from lora.config import LoRAConfig
from lora.inject import inject

STEPS = 20
HELD_OUT = 2
"""Steps' worth of rows."""


def same_losses(folder: Path) -> dict[str, Any]:
    """Train both from one adapter, without dropout."""
    path = workloads.prepare("b", workloads.MODES["batch 4"], STEPS, folder)
    adapter = initial(folder / "initial")
    start: speed.Start = {
        "ours": (ours(path, 0.0), {}),
        "peft": (peft(path, 0.0, ("--adapter", str(adapter))), {}),
    }
    found = _losses(start, path, folder)
    apart = [
        abs(x["loss"] - y["loss"]) / y["loss"]
        for x, y in zip(found["ours"], found["peft"], strict=True)
    ]
    losses = {name: [cycle["loss"] for cycle in found[name]] for name in found}
    return {"steps": STEPS, "most_apart": max(apart), "losses": losses}


def same_validation(folder: Path) -> dict[str, Any]:
    """Train both over an epoch, with dropout 0.1, and look at the rows held out."""
    mode = workloads.MODES["batch 4"]
    path = workloads.prepare("a", mode, STEPS, folder)
    held = workloads.prepare("a", mode, HELD_OUT, folder, skip=STEPS * mode["batch_size"])
    steps, settings = rows.read(held)
    # In one batch, as the Trainer's mean over batches weighs short ones as much as long ones.
    one = Step([i for s in steps for i in s.ids], [y for s in steps for y in s.labels])
    whole = folder / "held_out.json"
    rows.write(whole, [one], **settings)
    start: speed.Start = {
        "ours": (ours(path, 0.1, (f"--data.val_path={settings['data']}",)), {}),
        "peft": (peft(path, 0.1, ("--validate", str(whole))), {}),
    }
    found = _losses(start, path, folder)
    val = {name: cycles[-1]["val_loss"] for name, cycles in found.items()}
    return {"steps": STEPS, "val_loss": val, "apart": abs(val["ours"] - val["peft"]) / val["peft"]}


def initial(folder: Path) -> Path:
    """The adapter that ours begins with: it is drawn from the seed alone."""
    model = load_base(workloads.MODEL, None, torch.float32, None, torch.device("cpu"))
    torch.manual_seed(SEED)
    inject(model, LoRAConfig(r=8, lora_alpha=32, target_modules=list(PROJECTIONS)))
    return save_adapter(model, folder, str(Path(workloads.MODEL).resolve()))


def _losses(start: speed.Start, path: Path, folder: Path) -> dict[str, list[dict[str, Any]]]:
    cycles, _, failed = speed.rounds(start, path, folder)
    if failed:
        raise RuntimeError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
    return cycles
