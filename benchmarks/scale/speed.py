"""A model of an optimizer step's time: the busiest rank's compute, then what it sends."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from benchmarks.scale.bases import BASES, empty, flops_of_a_token
from benchmarks.scale.footprint import TOKENS, Footprint, R, of_known, shard
from benchmarks.scale.imbalance import Batching, simulate
from benchmarks.scale.traffic import Sizes, ddp, fsdp, sizes
from lora.config import LoRAConfig
from lora.inject import inject

MICRO_BATCHES = 64
"""Of an optimizer step over all devices, so that any number of them gives the same adapter."""
LABELLED = 0.5


@dataclass(frozen=True)
class Machine:
    """A device and its network. Nothing of it was measured here.

    Args:
        peak: Operations a second in half precision, as its maker says.
        used: The share of them that training reaches.
        memory: Bytes of a device.
        of_node: Devices of a machine.
        within, between: Bytes a second that a ring sends through a device's link within a machine,
            and through a machine's link to the next.
        latency: Seconds of a message.
    """

    peak: float
    used: float
    memory: float
    of_node: int
    within: float
    between: float
    latency: float

    def bandwidth(self, devices: int) -> float:
        """Bytes a second of the narrowest link of a ring."""
        return self.within if devices <= self.of_node else min(self.within, self.between)


MACHINES = {
    "T4, PCIe 3, 25 Gbit/s": Machine(65e12, 0.3, 16e9, 4, 8e9, 2.5e9, 30e-6),
    "A100, NVLink, 8 x 200 Gbit/s": Machine(312e12, 0.4, 80e9, 8, 240e9, 160e9, 15e-6),
    "H100, NVLink, 8 x 400 Gbit/s": Machine(989e12, 0.4, 80e9, 8, 360e9, 320e9, 15e-6),
    "H100, NVLink, 100 Gbit/s": Machine(989e12, 0.4, 80e9, 8, 360e9, 10e9, 30e-6),
}


@dataclass(frozen=True)
class Setting:
    """What is trained, and on what."""

    base: str
    machine: str
    sharded: bool
    gradient_checkpointing: bool


def step_time(
    flops: float, rate: float, sent: float, bandwidth: float, messages: int, latency: float
) -> tuple[float, float]:
    """Seconds of computing and of sending in an optimizer step; neither hides the other.

    Args:
        flops: Operations of the busiest rank.
        rate: Operations a second.
        sent: Bytes that a rank sends.
        bandwidth: Bytes a second.
        messages: Messages one after the other.
        latency: Seconds of each.
    """
    return flops / rate, sent / bandwidth + messages * latency


@dataclass(frozen=True)
class Work:
    """What the busiest rank computes in the median optimizer step.

    Args:
        row: Tokens of the row that a token is in, on average.
        waiting_once: Its tokens by devices, where ranks wait for each other once a step.
        waiting_often: The same where they wait in every micro-batch.
    """

    row: float
    waiting_once: dict[int, float]
    waiting_often: dict[int, float]


def work(lengths: np.ndarray, devices: Iterable[int]) -> Work:
    """Plan steps of MICRO_BATCHES micro-batches for numbers of devices that divide them.

    Args:
        lengths: (rows,) tokens of each row.
        devices: How many there may be.
    """
    once, often = {}, {}
    for count in devices:
        found = simulate(lengths, Batching(TOKENS, TOKENS, MICRO_BATCHES // count), count)
        once[count] = float(np.median(found.dealt * found.mean))
        often[count] = float(np.median(found.dealt_by_turn * found.mean))
    return Work(float((lengths.astype(float) ** 2).sum() / lengths.sum()), once, often)


def step(setting: Setting, devices: int, work: Work) -> tuple[float, float] | None:
    """Seconds of computing and of sending; None where it does not fit the devices' memory."""
    machine, base = MACHINES[setting.machine], BASES[setting.base]
    whole, operations, size = _of(setting.base, setting.gradient_checkpointing, work.row)
    here = shard(whole, base, "bf16", devices) if setting.sharded else whole
    if here.total > machine.memory:
        return None
    tokens, sent = work.waiting_once[devices], ddp(size.adapter, devices)
    messages = 2 * (devices - 1)
    if setting.sharded:
        turns = MICRO_BATCHES // devices
        tokens, sent = work.waiting_often[devices], fsdp(size, devices, turns)
        # Two gathers for each block, one for embeddings, one for the head.
        messages += (2 * size.layers + 2) * (devices - 1) * turns
    rate, bandwidth = machine.peak * machine.used, machine.bandwidth(devices)
    return step_time(tokens * operations, rate, sent, bandwidth, messages, machine.latency)


@cache
def _of(name: str, gradient_checkpointing: bool, row: float) -> tuple[Footprint, float, Sizes]:
    """A base's memory on one device, its operations of a token, and what can be sent of it."""
    base = BASES[name]
    model = empty(base)
    inject(model, LoRAConfig(r=R, target_modules="all-linear"))
    operations = flops_of_a_token(model, row, LABELLED, gradient_checkpointing)
    return of_known(name, "bf16", gradient_checkpointing), operations, sizes(base, R)
