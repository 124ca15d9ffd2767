"""A checkup: everything that is known about a run before its weights are loaded."""

from dataclasses import dataclass

import numpy as np
import torch

from lit.device.memory import total_memory
from lit.distributed.sharding import ShardedStrategy
from lit.messages import tr, tr_mark
from lit.preflight.estimate import MemoryEstimate, estimate_memory
from lit.preflight.finding import Finding
from lit.preflight.forecast import Forecast, forecast, largest_micro_batch
from lit.preflight.sharing import settle_sharing
from lit.preflight.verdict import judge
from lit.settings.arguments import Arguments

TOO_LARGE_FOR_DEVICE = tr_mark(
    "{each} needs about {needed:.1f} GB of memory, but the device has {available:.1f} GB: "
    "lower data.batch_size or data.max_length, or add --model.gradient_checkpointing true"
)
TOO_LARGE_FOR_HOST = tr_mark(
    "{each} needs about {needed:.1f} GB of memory, but this machine has {available:.1f} GB: "
    "close other programs, or use fewer trainer.devices: a base passes through it to a GPU"
)


@dataclass(frozen=True)
class Checkup:
    """The plan, the memory estimate and the findings of a run."""

    arguments: Arguments
    forecast: Forecast
    estimate: MemoryEstimate
    findings: list[Finding]

    @property
    def fatal(self) -> bool:
        """Whether the run cannot work."""
        return any(finding.fatal for finding in self.findings)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each training row, (rows,)."""
        data = self.arguments.datamodule
        return data.store.lengths[data.train_rows]


def examine(arguments: Arguments) -> Checkup:
    """Check a run; loads the tokenizer and the model's config, and no weights.

    Args:
        arguments: The run's settings; this function makes their objects.

    Raises:
        ConfigError, DataError: The run cannot be planned.
    """
    arguments.instantiate()
    trainer = arguments.make_trainer(callbacks=[], logger=False, enable_progress_bar=False)
    arguments.datamodule.setup()
    settle_sharing(arguments, always=True)
    planned = forecast(arguments)
    largest, device = largest_micro_batch(arguments, planned), trainer.strategy.root_device
    size = largest.lengths, largest.labels, device, largest.paths
    estimate = estimate_memory(arguments.model, str(trainer.precision), *size)
    findings = judge(arguments, planned) + memory_findings(arguments, estimate)
    return Checkup(arguments, planned, estimate, findings)


def memory_findings(arguments: Arguments, estimate: MemoryEstimate) -> list[Finding]:
    """Return what is wrong with a run's memory: that of its device, and on a GPU the machine's."""
    trainer = arguments.trainer
    device: torch.device = trainer.strategy.root_device
    # The estimate is of one process with the whole base; a sharded process needs less.
    if isinstance(trainer.strategy, ShardedStrategy):
        return []
    cpu = device.type == "cpu"
    # Processes share the memory of their machine, and each has a GPU of its own.
    needs = [(estimate.peak, device, trainer.num_devices if cpu else 1, TOO_LARGE_FOR_DEVICE)]
    if not cpu:
        needs.append((estimate.host, torch.device("cpu"), trainer.num_devices, TOO_LARGE_FOR_HOST))
    findings = []
    for needed, where, processes, text in needs:
        available = total_memory(where)
        if available is None or needed * processes <= available:
            continue
        each = (
            tr("each of {processes} processes", processes=processes)
            if processes > 1
            else tr("the run")
        )
        findings.append(
            Finding(tr(text, each=each, needed=needed / 1e9, available=available / 1e9))
        )
    return findings
