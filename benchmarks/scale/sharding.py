"""What each of several processes holds of a base, whole and sharded, and how long a step takes.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m benchmarks.scale.sharding

On the embedded model, in float32 on a CPU, over gloo; every rank has the same 200 random tokens.
Memory is the kernel's: anonymous pages, and pages of the model's file, which all processes of a
machine share. Prints a Markdown table of the first rank; sharding comes last, as it frees memory.
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

from data.batch import collate
from data.types import Batch, Example
from lit.distributed.sharding import average_gradients, shard
from lit.model.attention import pack
from lit.model.base import load_base
from lit.model.loss import summed_loss
from lit.run.memory import trim_heap
from lora.config import LoRAConfig
from lora.inject import inject, trainable_parameters

MODEL = "models/SmolLM2-135M-Instruct"
ROWS, LENGTH, STEPS = 2, 100, 3


def pages() -> tuple[float, float]:
    """Megabytes of this process: anonymous, and of files."""
    gc.collect()
    # What glibc keeps of freed memory is nobody's.
    ctypes.CDLL(None).malloc_trim(0)
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    anonymous, file = (int(sizes[name][0]) / 1e3 for name in ("RssAnon", "RssFile"))
    return anonymous, file


def parameters(model: nn.Module) -> float:
    """Megabytes of the frozen parameters that this process holds."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    local: list[Tensor] = [p.to_local() if isinstance(p, DTensor) else p for p in frozen]
    return sum(p.nbytes for p in local) / 1e6


def seconds(model: PreTrainedModel, batch: Batch, call: nn.Module | None) -> float:
    """The median time of a forward and backward pass with the gradients' mean."""
    taken = []
    trained = list(trainable_parameters(model).values())
    for _ in range(STEPS + 1):
        dist.barrier()
        since = time.perf_counter()
        compute = partial(summed_loss, model, batch)
        (call(compute) if call else compute()).backward()
        average_gradients(trained)
        taken.append(time.perf_counter() - since)
    return statistics.median(taken[1:])


def main() -> None:
    """Measure."""
    trim_heap()
    dist.init_process_group("gloo")
    rows = []

    def note(name: str, step: float | None = None) -> None:
        time_of_step = "" if step is None else f"{step:.1f}"
        anonymous, file = pages()
        rows.append((name, parameters(model), anonymous, file, time_of_step))

    torch.manual_seed(0)
    model: PreTrainedModel = load_base(MODEL)
    inject(model, LoRAConfig())
    ids = torch.randint(3, model.config.vocab_size, (ROWS, LENGTH)).tolist()
    batch = collate([Example(row, row) for row in ids])
    pack(model, batch)
    note("whole")
    note("whole, after steps", seconds(model, batch, None))
    root = shard(model, init_device_mesh("cpu", (dist.get_world_size(),)), torch.device("cpu"))
    note("sharded")
    note("sharded, after steps", seconds(model, batch, root))
    if dist.get_rank() == 0:
        print("| base | parameters MB | anonymous MB | file MB | s a step |\n|---|---|---|---|---|")
        for name, held, anonymous, file, step in rows:
            print(f"| {name} | {held:.0f} | {anonymous:.0f} | {file:.0f} | {step} |")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
