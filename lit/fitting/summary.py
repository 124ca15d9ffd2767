"""What a run prints: its rows and its plan at the start, its result at the end."""

import torch

from data.templates.variables import read_values, shown
from lit.device.memory import peak_memory
from lit.fitting.progress import Throughput
from lit.messages import tr
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
    print_rank0(tr("data   {source}: {report}", source=data.source, report=data.store.report))
    for line in data.store.report.lines():
        print_rank0(f"       {line}")
    if data.val is not data.store:
        print_rank0(f"       {data.val_source}: {data.val.report}")
        for line in data.val.report.lines():
            print_rank0(f"       {line}")
    for line in filter(None, (str(data.overlap), data.share_note)):
        print_rank0(f"       {line}")
    described, values = data.template, read_values(data.tokenizer)
    if values:
        described = tr("{template} with {values}", template=data.template, values=shown(values))
    print_rank0(
        tr(
            "       {train} {unit} train, {val} validate; template {template}",
            train=len(data.train_rows),
            unit=tr(data.store.report.unit),
            val=len(data.val_rows),
            template=described,
        )
    )
    print_rank0(
        tr(
            "device {device}: {precision} ({reason})",
            device=arguments.hardware.device,
            precision=precision.value,
            reason=precision.reason,
        )
    )
    print_rank0(
        tr(
            "plan   {total_steps} optimizer steps, {steps} in the first epoch of {max_epochs}; "
            "{labels} of {tokens} tokens have labels",
            total_steps=data.total_steps(),
            steps=first.steps,
            max_epochs=trainer.max_epochs,
            labels=planned.labels,
            tokens=tokens,
        )
    )
    if sharing := planned.describe_sharing():
        print_rank0(f"       {sharing}")
    print_rank0(
        tr(
            "       validates {when}",
            when=describe_validation(arguments, planned),
        )
    )


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
    print_rank0(
        tr(
            "model  {trainable:,} of {total:,} parameters trained",
            trainable=size.trainable,
            total=size.total,
        )
    )
    if left := describe_not_adapted(shares_not_adapted(arguments.model.adapted_model)):
        print_rank0(f"       {left}")
    cost = {
        "tokens": throughput.tokens,
        "duration": _duration(throughput.seconds),
        "memory": _peak_memory(device),
    }
    print_rank0(
        tr(
            "run    {done} optimizer steps since the resume at step {resumed_at} ({step} in the "
            "whole run), {tokens:,} tokens in {duration}, {memory}",
            done=trainer.global_step - resumed_at,
            resumed_at=resumed_at,
            step=trainer.global_step,
            **cost,
        )
        if resumed_at
        else tr(
            "run    {step} optimizer steps, {tokens:,} tokens in {duration}, {memory}",
            step=trainer.global_step,
            **cost,
        )
    )
    planned = arguments.datamodule.total_steps()
    if trainer.global_step < planned:
        print_rank0(
            tr("       ended before the last of {planned} planned optimizer steps", planned=planned)
        )
    if arguments.datamodule.val_rows.size:
        change = relative_change(best.base_loss, best.loss)
        print_rank0(
            tr(
                "loss   {base_loss:.4f} -> {loss:.4f} on held-out rows ({change:+.1%}), best at "
                "step {step}",
                base_loss=best.base_loss,
                loss=best.loss,
                change=change,
                step=best.step,
            )
        )
        if not best.loss < best.base_loss:
            start = arguments.model.adapter or tr("the base")
            print_rank0(
                tr("       the adapter is not better than {start} on held-out rows", start=start)
            )
    size_in_bytes = sum(path.stat().st_size for path in folder.adapter.iterdir())
    print_rank0(
        tr(
            "wrote  {adapter} ({size_in_bytes:.1f} MB), {picture}",
            adapter=folder.adapter,
            size_in_bytes=size_in_bytes / 1e6,
            picture=folder.picture,
        )
    )
    if misread := describe_misreading(arguments.model.adapted_model):
        print_rank0(f"       {tr(misread)} --adapter {folder.adapter}")
    print_rank0(tr("next   python -m lit.compare --adapter {adapter}", adapter=folder.adapter))
    print_rank0(f"       python -m lit.chat --adapter {folder.adapter}")
    print_rank0(f"       tensorboard --logdir {folder.path}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return tr("{seconds} s", seconds=rest)
    return tr("{minutes} min {seconds} s", minutes=minutes, seconds=rest)


def _peak_memory(device: torch.device) -> str:
    own = peak_memory() / 1e9
    if device.type != "cuda":
        return tr("{own:.1f} GB of memory at its peak", own=own)
    return tr(
        "{own:.1f} GB of memory at its peak, {gpu:.1f} GB on the GPU",
        own=own,
        gpu=peak_memory(device) / 1e9,
    )
