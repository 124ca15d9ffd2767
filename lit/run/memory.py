"""The memory of this machine: what this process took, and what there is."""

import ctypes
import os
import resource
import sys
from pathlib import Path

import torch

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where Linux says how much a container may take."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE, LARGEST = 1 << 20, 32 << 20
"""Blocks that are worth giving back, and those that glibc can keep, in bytes."""
ROOM = 2.0
"""How often what a step takes at first must fit into the memory there is, for it may grow so."""


def retain_heap() -> None:
    """Have freed memory stay with the process: each step takes what the one before had.

    Linux fills every page with zeros that it hands out, which costs a step some percent.
    """
    if library := _glibc():
        library.mallopt(M_MMAP_THRESHOLD, LARGEST)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def trim_heap() -> None:
    """Have large blocks of memory go back to Linux once they are freed: less memory, slower.

    glibc keeps them to use again, but a block that torch asks for, at an address that 64 divides,
    does not fit where an equal one was, and so a process grows beyond what it holds.
    """
    if library := _glibc():
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
        library.mallopt(M_TRIM_THRESHOLD, LARGE)
        library.malloc_trim(0)


def tight(device: torch.device, processes: int, growth: float = 1.0) -> bool:
    """Whether so much of a device's memory is taken that its processes must not grow further.

    Args:
        device: Of this process.
        processes: How many like it there are on this machine.
        growth: How much more than now each of them will take, as a factor.

    Returns:
        True where the device's memory is not known.
    """
    there = total(device)
    if device.type == "cuda":
        processes = 1
    return there is None or used(device) * growth * processes * ROOM > there


def used(device: torch.device | None = None) -> int:
    """The most memory that this process has had, in bytes: of the machine, or of a GPU."""
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    # ru_maxrss counts kilobytes on Linux and bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def total(device: torch.device) -> int | None:
    """All memory of a device in bytes, or on a CPU what a container may take of it, if known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type != "cpu" or not hasattr(os, "sysconf"):
        return None
    amounts = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in CGROUP_LIMITS:
        text = path.read_text().strip() if path.is_file() else ""
        amounts += [int(text)] if text.isdecimal() else []
    return min(amounts)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return None
    return library
