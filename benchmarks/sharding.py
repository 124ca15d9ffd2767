"""Measure memory and step time of two processes with the whole base and with a sharded one.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m benchmarks.sharding

The embedded model in float32 on a CPU, over gloo; every rank has the same 200 random tokens. Memory
is what the kernel counts: anonymous pages, and pages of the model's file, which all processes of a
machine share. Prints a Markdown table for the first rank.
"""

import ctypes
import gc
import statistics
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from benchmarks.embedded_model import load_adapted, random_batch
from data.types import Batch
from lit.device.memory import trim_heap
from lit.distributed.sharding import average_gradients, shard
from lit.model.loss import summed_loss
from lora.config import LoRAConfig
from lora.injection import trainable_parameters

LENGTHS, STEPS = (100, 100), 3


def resident_pages() -> tuple[float, float]:
    """Return the megabytes that this process has in memory: anonymous pages, pages of files."""
    gc.collect()
    # glibc keeps freed memory; give it back, so that only what is in use is counted.
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    anonymous, files = (int(fields[name][0]) / 1e3 for name in ("RssAnon", "RssFile"))
    return anonymous, files


def frozen_megabytes(model: nn.Module) -> float:
    """Return the megabytes of the frozen parameters that this process holds."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    local: list[Tensor] = [p.to_local() if isinstance(p, DTensor) else p for p in frozen]
    return sum(p.nbytes for p in local) / 1e6


def seconds_of_step(model: PreTrainedModel, batch: Batch, root: nn.Module | None) -> float:
    """Return the median seconds of a forward and backward pass with the mean of the gradients.

    Args:
        model: With an adapter.
        batch: What it computes.
        root: The sharded model that gathers weights around a call; None for a whole model.
    """
    seconds = []
    trained = list(trainable_parameters(model).values())
    for _ in range(STEPS + 1):
        dist.barrier()
        start = time.perf_counter()
        compute = partial(summed_loss, model, batch)
        (root(compute) if root else compute()).backward()
        average_gradients(trained)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    """Measure and print."""
    trim_heap()
    dist.init_process_group("gloo")
    rows = []

    def add_row(name: str, seconds: float | None = None) -> None:
        anonymous, files = resident_pages()
        time_of_step = "" if seconds is None else f"{seconds:.1f}"
        rows.append((name, frozen_megabytes(model), anonymous, files, time_of_step))

    model = load_adapted(LoRAConfig(), fast_layers=False)
    batch = random_batch(LENGTHS, labeled=1)
    add_row("whole")
    add_row("whole, after steps", seconds_of_step(model, batch, None))
    # Last, as sharding frees the whole base.
    root = shard(model, init_device_mesh("cpu", (dist.get_world_size(),)), torch.device("cpu"))
    add_row("sharded")
    add_row("sharded, after steps", seconds_of_step(model, batch, root))
    if dist.get_rank() == 0:
        print("| base | parameters MB | anonymous MB | file MB | s a step |\n|---|---|---|---|---|")
        for name, parameters, anonymous, files, seconds in rows:
            print(f"| {name} | {parameters:.0f} | {anonymous:.0f} | {files:.0f} | {seconds} |")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
