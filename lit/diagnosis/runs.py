"""Checks that train: whole runs of ``lit.fit`` on a small model, in a folder that is removed."""

import gc
import io
import math
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

from lit.device.device import check_quantization
from lit.device.memory import forget_peak, peak_memory
from lit.device.precision import PRECISIONS, check_precision
from lit.diagnosis.machine import Machine, SkippedError, WrongError
from lit.diagnosis.sample import SMALL, write_model, write_rows
from lit.distributed.ranks import Ranks
from lit.fitting.training import fit
from lit.model.base import load_base
from lit.preflight.checkup import examine
from lit.run.folder import RunFolder
from lit.run.metrics_file import read_losses, read_table
from lit.settings.arguments import parse
from lora.config import ConfigError
from lora.storage.adapter import load_adapter

TIMED_STEPS = 20


def check_speed(machine: Machine) -> str:
    """Time 20 optimizer steps, and compare the peak of memory with the estimate.

    It must be the first check: on a CPU the peak is that of the whole process.
    """
    folder = _fresh(machine, "speed")
    rows = write_rows(folder / "rows.jsonl", 4 * TIMED_STEPS, words=12)
    model = write_model(folder / "model", machine.timed)
    command = _command(machine, model, rows, folder / "run")
    command += ["--data.val_fraction", "0", "--trainer.max_epochs", "1"]
    with redirect_stdout(io.StringIO()):
        estimate = examine(parse(command)).estimate
    forget_peak(machine.device)
    _train(command)
    peak = peak_memory(machine.device)
    speeds = [
        float(row["train/tokens_per_s"])
        for row in read_table(RunFolder(folder / "run").metrics)
        if row["train/tokens_per_s"]
    ]
    return (
        f"{estimate.parameters.total / 1e6:.0f} million parameters, {len(speeds)} steps, median "
        f"{sorted(speeds)[len(speeds) // 2]:.0f} tokens/s; peak {peak / 1e9:.2f} GB, estimated "
        f"{estimate.peak / 1e9:.2f} GB"
    )


def check_precisions(machine: Machine) -> str:
    """Train in each precision that the device has; each lowers the loss and saves its adapter."""
    folder = _fresh(machine, "precisions")
    model = write_model(folder / "model", SMALL)
    rows = write_rows(folder / "rows.jsonl", 24, words=8)
    found = []
    for precision in PRECISIONS:
        try:
            check_precision(precision, machine.traits, "llama")
        except ConfigError:
            found.append(f"{precision} not on this device")
            continue
        command = _command(machine, model, rows, folder / precision)
        found.append(f"{precision} {_learned([*command, '--trainer.precision', precision])}")
    return "; ".join(found)


def check_quantized(machine: Machine) -> str:
    """Train with the base in 4 bits, with a paged 8-bit optimizer and with checkpointing."""
    try:
        check_quantization("nf4", machine.traits)
    except ConfigError as error:
        raise SkippedError(str(error).replace("`", "")) from None
    if find_spec("bitsandbytes") is None:
        raise SkippedError("bitsandbytes is not installed")
    folder = _fresh(machine, "quantized")
    model = write_model(folder / "model", SMALL)
    rows = write_rows(folder / "rows.jsonl", 24, words=8)
    command = _command(machine, model, rows, folder / "run")
    command += ["--model.quantize", "nf4", "--model.optimizer", "paged_adamw_8bit"]
    return f"nf4 {_learned([*command, '--model.gradient_checkpointing', 'true'])}"


def _command(machine: Machine, model: Path, rows: Path, run: Path) -> list[str]:
    accelerator, index = machine.device.type, machine.device.index
    devices = f"[{index}]" if index else "1"
    return [
        *("--model.base", str(model), "--data.path", str(rows), "--output_dir", str(run)),
        *("--trainer.accelerator", accelerator, "--trainer.devices", devices),
        *("--model.lr", "5e-3", "--model.lora.lora_dropout", "0.05", "--trainer.max_epochs", "3"),
    ]


def _learned(command: list[str]) -> str:
    """Train, check that the loss fell and that the adapter loads, and return both losses."""
    _train(command)
    run = RunFolder(command[command.index("--output_dir") + 1])
    _, losses = read_losses(run.metrics)
    before, after = losses[0][1], losses[-1][1]
    if not (math.isfinite(after) and after < before):
        raise WrongError(f"{' '.join(command[-2:])}: the validation loss went {before} -> {after}")
    load_adapter(load_base(command[command.index("--model.base") + 1]), run.adapter)
    return f"{before:.3f} -> {after:.3f}"


def _train(command: list[str]) -> None:
    with redirect_stdout(io.StringIO()):
        fit(parse(command), Ranks())
    gc.collect()


def _fresh(machine: Machine, name: str) -> Path:
    folder = machine.folder / name
    folder.mkdir()
    return folder
