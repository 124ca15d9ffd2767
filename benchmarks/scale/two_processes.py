"""How well the model of ``benchmarks.scale.speed`` tells the step of two processes on this machine.

    OMP_NUM_THREADS=1 python -m benchmarks.scale.two_processes

The embedded model in float32 with adapters of rank 8 on all linear layers, one thread a process,
gloo on the loopback, torch's DistributedDataParallel around the project's loss. Measured are a step
of one process alone, by which the machine's rate is known; the time of an all-reduce, by which the
network is known; then steps of two processes, even and uneven, beside what the model says of them.
Prints Markdown tables. Steps take turns, and each number is a median.
"""

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import date

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from benchmarks.scale.bases import flops_of_a_token
from benchmarks.scale.lengths import MODEL, ROOT
from benchmarks.scale.speed import step_time
from benchmarks.scale.traffic import ddp
from data.batch import collate
from data.types import Batch, Example
from lit.model.attention import pack
from lit.model.base import load_base
from lit.model.loss import summed_loss
from lora.config import LoRAConfig
from lora.inject import inject, trainable_parameters

ROW = 128
ALONE = (256, 512)
"""Tokens of steps of one process alone."""
PAIRS = ((256, 256), (384, 128))
"""Tokens of steps of two processes."""
REPEATS = 5
SIZES = (4, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26)
"""Bytes of all-reduces."""
FITTED = (4, 1 << 24)
"""Of these, those that the network's latency and bandwidth are taken from."""
WAIT = 300


class Loss(nn.Module):
    """The project's loss of a batch, as a module that can be wrapped."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """The sum over labeled tokens."""
        return summed_loss(self.model, batch)


def batch_of(tokens: int) -> Batch:
    """Rows of ROW tokens, half of which are labeled."""
    ids = [3 + i % 1000 for i in range(ROW)]
    row = Example(ids, [-100] * (ROW // 2) + ids[ROW // 2 :])
    return collate([row] * (tokens // ROW))


def adapted_model() -> PreTrainedModel:
    """The embedded model with adapters, in training mode."""
    model = load_base(str(MODEL))
    inject(model, LoRAConfig(target_modules="all-linear"))
    pack(model, batch_of(2 * ROW))
    return model.train()


def seconds_of(step: "nn.Module", batch: Batch, optimizer: torch.optim.Optimizer) -> float:
    """The time of an optimizer step."""
    begin = time.perf_counter()
    step(batch).backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - begin


def alone() -> dict:
    """Steps of one process, the operations of a token, and what trains."""
    model = adapted_model()
    loss = Loss(model)
    optimizer = torch.optim.AdamW(trainable_parameters(model).values(), lr=1e-4)
    found: dict[int, list[float]] = {tokens: [] for tokens in ALONE}
    for turn in range(REPEATS + 1):
        for tokens in ALONE:
            seconds = seconds_of(loss, batch_of(tokens), optimizer)
            found[tokens] += [seconds] if turn else []
    return {
        "seconds": {tokens: statistics.median(times) for tokens, times in found.items()},
        "flops": flops_of_a_token(model, ROW, 0.5),
        "adapter": sum(p.nbytes for p in trainable_parameters(model).values()),
    }


def pair(rank: int) -> dict:
    """Steps of two processes, with and without their sum of gradients, and all-reduces."""
    model = adapted_model()
    trained = list(trainable_parameters(model).values())
    loss = DistributedDataParallel(Loss(model))
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    steps: dict[str, list[float]] = {}
    for turn in range(REPEATS + 1):
        for tokens in PAIRS:
            for name, context in (("sent", nullcontext), ("unsent", loss.no_sync)):
                dist.barrier()
                begin = time.perf_counter()
                with context():
                    seconds_of(loss, batch_of(tokens[rank]), optimizer)
                dist.barrier()
                times = steps.setdefault(f"{name} {tokens[0]} {tokens[1]}", [])
                times += [time.perf_counter() - begin] if turn else []
    sums = {}
    for size in (*SIZES, sum(p.nbytes for p in trained)):
        numbers = torch.zeros(size // 4)
        times = []
        for _ in range(4 * REPEATS):
            dist.barrier()
            begin = time.perf_counter()
            dist.all_reduce(numbers)
            times.append(time.perf_counter() - begin)
        sums[size] = statistics.median(times)
    medians = {name: statistics.median(times) for name, times in steps.items()}
    return {"steps": medians, "sums": sums}


def start(count: int) -> dict:
    """Run processes of this file and take what the first has found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    command = [sys.executable, "-m", "benchmarks.scale.two_processes"]
    started = [
        subprocess.Popen(
            command, env=environment | {"RANK": str(rank)}, cwd=ROOT, stdout=subprocess.PIPE
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=WAIT)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    if any(process.returncode for process in started):
        raise SystemExit("a process failed; see above")
    return json.loads(said[0].splitlines()[-1])


def report(one: dict, two: dict) -> str:
    """Tables of what was measured beside what the model says."""
    few, many = (one["seconds"][str(tokens)] for tokens in ALONE)
    rate = (ALONE[1] - ALONE[0]) * one["flops"] / (many - few)
    fixed = few - ALONE[0] * one["flops"] / rate
    sums = {int(size): seconds for size, seconds in two["sums"].items()}
    latency = sums[FITTED[0]]
    bandwidth = ddp(FITTED[1], 2) / (sums[FITTED[1]] - latency)
    lines = [
        f"One process alone: {few:.2f} s a step of {ALONE[0]} tokens, {many:.2f} s of {ALONE[1]}; "
        f"that is {rate / 1e9:.1f} GFLOP/s at {one['flops'] / 1e9:.3f} GFLOP a token, and "
        f"{fixed:.2f} s a step whatever its size. An all-reduce of 4 bytes takes "
        f"{latency * 1e3:.2f} ms; one of {FITTED[1] / 1e6:.1f} MB gives "
        f"{bandwidth / 1e9:.2f} GB/s.\n",
        "| all-reduce, MB | measured, ms | the model, ms | model / measured |",
        "|---|---|---|---|",
    ]
    for size in sorted(sums):
        told = sum(step_time(0, rate, ddp(size, 2), bandwidth, 1, latency))
        ours = " (the adapter)" if size == one["adapter"] else ""
        lines.append(
            f"| {size / 1e6:.2f}{ours} | {sums[size] * 1e3:.2f} | {told * 1e3:.2f} "
            f"| {told / sums[size]:.2f} |"
        )
    lines += [
        "\n| tokens of the two ranks | measured, s | the model, s | model / measured "
        "| nothing sent, measured, s |",
        "|---|---|---|---|---|",
    ]
    for tokens in PAIRS:
        name = f"{tokens[0]} {tokens[1]}"
        measured, unsent = (two["steps"][f"{kind} {name}"] for kind in ("sent", "unsent"))
        flops, sent = max(tokens) * one["flops"], ddp(one["adapter"], 2)
        told = fixed + sum(step_time(flops, rate, sent, bandwidth, 1, latency))
        lines.append(
            f"| {tokens[0]} and {tokens[1]} | {measured:.2f} | {told:.2f} | {told / measured:.2f} "
            f"| {unsent:.2f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, or be one of the processes."""
    if "RANK" in os.environ:
        torch.set_num_threads(1)
        together = os.environ["WORLD_SIZE"] != "1"
        if together:
            dist.init_process_group("gloo")
        print(json.dumps(pair(int(os.environ["RANK"])) if together else alone()), flush=True)
        if together:
            dist.destroy_process_group()
        return 0
    print(
        f"{date.today().isoformat()}, {os.cpu_count()} {platform.machine()} cores, torch "
        f"{torch.__version__}, medians of {REPEATS}\n"
    )
    print(report(start(1), start(2)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
