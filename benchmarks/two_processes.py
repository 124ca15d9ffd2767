"""Measure an optimizer step of one process, and of two processes under DDP.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 1 -m benchmarks.two_processes
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m benchmarks.two_processes

The embedded model in float32 with adapters of rank 8 on all linear layers, rows of 128 tokens, half
of them with labels, one thread per process, over gloo; torch's DistributedDataParallel around the
loss. Two processes also time all-reduces. Steps take turns; prints Markdown tables of medians.
"""

import statistics
import time
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from benchmarks.embedded_model import load_adapted, random_batch
from data.types import Batch
from lit.model.loss import summed_loss
from lora.config import LoRAConfig
from lora.injection import trainable_parameters

ROW = 128
TOKENS = {1: ((256,), (512,)), 2: ((256, 256), (384, 128))}
"""By number of processes: the tokens of each rank in a step."""
REPEATS = 5
SIZES = (4, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26)
"""Bytes of an all-reduce."""


class SummedLoss(nn.Module):
    """The summed loss of a batch, as a module that DistributedDataParallel can wrap."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """Return the sum over labeled tokens."""
        return summed_loss(self.model, batch)


def time_steps(model: PreTrainedModel) -> dict[tuple[tuple[int, ...], bool], float]:
    """Return the median seconds of a step by (tokens of each rank, whether gradients are sent)."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    loss = DistributedDataParallel(SummedLoss(model)) if world_size > 1 else SummedLoss(model)
    optimizer = torch.optim.AdamW(trainable_parameters(model).values(), lr=1e-4)
    batches = {
        tokens: random_batch([ROW] * (tokens[rank] // ROW), 0.5) for tokens in TOKENS[world_size]
    }
    seconds = defaultdict(list)
    for _ in range(REPEATS + 1):
        for tokens, batch in batches.items():
            for sends in (True, False) if world_size > 1 else (False,):
                silent = isinstance(loss, DistributedDataParallel) and not sends
                context: AbstractContextManager = loss.no_sync() if silent else nullcontext()
                dist.barrier()
                start = time.perf_counter()
                with context:
                    loss(batch).backward()
                optimizer.step()
                optimizer.zero_grad()
                dist.barrier()
                seconds[tokens, sends].append(time.perf_counter() - start)
    return {key: statistics.median(times[1:]) for key, times in seconds.items()}


def time_all_reduce(size: int) -> float:
    """Return the median seconds of an all-reduce of so many bytes."""
    numbers = torch.zeros(size // 4)
    seconds = []
    for _ in range(4 * REPEATS):
        dist.barrier()
        start = time.perf_counter()
        dist.all_reduce(numbers)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model = load_adapted(LoRAConfig(target_modules="all-linear"), fast_layers=False)
    steps = time_steps(model)
    adapter = sum(p.nbytes for p in trainable_parameters(model).values())
    sizes = sorted({*SIZES, adapter}) if dist.get_world_size() > 1 else []
    sums = {size: time_all_reduce(size) for size in sizes}
    if dist.get_rank() == 0:
        print("| tokens of each rank | gradients are sent | s a step |\n|---|---|---|")
        for (tokens, sends), seconds in steps.items():
            print(
                f"| {' and '.join(map(str, tokens))} | {'yes' if sends else 'no'} | {seconds:.2f} |"
            )
        if sums:
            print("\n| all-reduce, MB | ms |\n|---|---|")
        for size, seconds in sums.items():
            name = " (the adapter)" if size == adapter else ""
            print(f"| {size / 1e6:.2f}{name} | {seconds * 1e3:.2f} |")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
