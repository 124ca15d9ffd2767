"""What a run prints: its rows and its plan at the start, its result at the end."""

import torch

from data.templates.variables import read_values, shown
from lit.device.memory import peak_memory
from lit.fitting.progress import Throughput
from lit.model.peft_note import describe_misreading
from lit.preflight.coverage import describe_not_adapted, shares_not_adapted
from lit.preflight.forecast import describe_validation, forecast
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.metrics_file import relative_change
from lit.settings.arguments import Arguments
from lit.train.best_adapter import BestAdapter
from lora.injection import count_parameters


def print_rows_and_plan(arguments: Arguments) -> None:
    """Print how many rows are used and why others are not, and how long the run is."""
    data, trainer = arguments.datamodule, arguments.trainer
    precision = arguments.hardware.precision
    planned = forecast(arguments)
    first, tokens = planned.first, planned.row_tokens
    print_rank0(f"data   {data.source}: {data.store.report}")
    for line in data.store.report.lines():
        print_rank0(f"       {line}")
    if data.val is not data.store:
        print_rank0(f"       {data.val_source}: {data.val.report}")
        for line in data.val.report.lines():
            print_rank0(f"       {line}")
    for line in filter(None, (str(data.overlap), data.share_note)):
        print_rank0(f"       {line}")
    values = read_values(data.tokenizer)
    print_rank0(
        f"       {len(data.train_rows)} {data.store.report.unit} train, {len(data.val_rows)} "
        f"validate; template {data.template}{f' with {shown(values)}' if values else ''}"
    )
    print_rank0(f"device {arguments.hardware.device}: {precision.value} ({precision.reason})")
    print_rank0(
        f"plan   {data.total_steps()} optimizer steps, {first.steps} in the first epoch of "
        f"{trainer.max_epochs}; {planned.labels} of "
        f"{tokens} tokens have labels"
    )
    if sharing := planned.describe_sharing():
        print_rank0(f"       {sharing}")
    print_rank0(f"       validates {describe_validation(arguments, planned)}")


def print_result(
    arguments: Arguments,
    folder: RunFolder,
    best: BestAdapter,
    throughput: Throughput,
    resumed_at: int,
) -> None:
    """Print what was trained, what it cost, whether it helped, and what to type next.

    Args:
        arguments: The settings.
        folder: The run's folder.
        best: The best adapter of the run.
        throughput: Tokens and seconds of this process.
        resumed_at: Optimizer steps that earlier processes have done.
    """
    trainer, device = arguments.trainer, arguments.trainer.strategy.root_device
    size = count_parameters(arguments.model.adapted_model)
    print_rank0(f"model  {size.trainable:,} of {size.total:,} parameters trained")
    if left := describe_not_adapted(shares_not_adapted(arguments.model.adapted_model)):
        print_rank0(f"       {left}")
    done, earlier = trainer.global_step - resumed_at, ""
    if resumed_at:
        earlier = f" since the resume at step {resumed_at} ({trainer.global_step} in the whole run)"
    print_rank0(
        f"run    {done} optimizer steps{earlier}, {throughput.tokens:,} tokens in "
        f"{_duration(throughput.seconds)}, {_peak_memory(device)}"
    )
    planned = arguments.datamodule.total_steps()
    if trainer.global_step < planned:
        print_rank0(f"       ended before the last of {planned} planned optimizer steps")
    if arguments.datamodule.val_rows.size:
        change = relative_change(best.base_loss, best.loss)
        print_rank0(
            f"loss   {best.base_loss:.4f} -> {best.loss:.4f} on held-out rows ({change:+.1%}), "
            f"best at step {best.step}"
        )
        if not best.loss < best.base_loss:
            start = arguments.model.adapter or "the base"
            print_rank0(f"       the adapter is not better than {start} on held-out rows")
    size_in_bytes = sum(path.stat().st_size for path in folder.adapter.iterdir())
    print_rank0(f"wrote  {folder.adapter} ({size_in_bytes / 1e6:.1f} MB), {folder.picture}")
    if misread := describe_misreading(arguments.model.adapted_model):
        print_rank0(f"       {misread} --adapter {folder.adapter}")
    print_rank0(f"next   python -m lit.compare --adapter {folder.adapter}")
    print_rank0(f"       python -m lit.chat --adapter {folder.adapter}")
    print_rank0(f"       tensorboard --logdir {folder.path}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _peak_memory(device: torch.device) -> str:
    text = f"{peak_memory() / 1e9:.1f} GB of memory at its peak"
    if device.type == "cuda":
        text += f", {peak_memory(device) / 1e9:.1f} GB on the GPU"
    return text
