"""The memory of this machine: how much there is, and how much this process has used."""

import ctypes
import gc
import sys
from pathlib import Path

import psutil
import torch

CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Files in which Linux gives the memory limit of a container."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGE, LARGEST = 1 << 20, 32 << 20
"""Bytes: blocks that are worth returning to Linux, and the largest ones that glibc can keep."""
HEADROOM = 2.0
"""Memory is tight below this multiple of the first step's memory: later steps may need more."""


def retain_heap() -> None:
    """Let glibc keep freed memory, so that each step uses the memory of the one before.

    Linux fills every page that it hands out with zeros, which costs a few percent of a step.
    """
    if library := _glibc():
        library.mallopt(M_MMAP_THRESHOLD, LARGEST)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def trim_heap() -> None:
    """Let glibc return large blocks to Linux when they are freed: less memory, slower steps.

    glibc would keep them for later use, but torch asks for blocks at addresses that are multiples
    of 64. Such a block does not fit where an equal one was, so the process grows beyond what it
    holds.
    """
    if library := _glibc():
        library.mallopt(M_MMAP_THRESHOLD, LARGE)
        library.mallopt(M_TRIM_THRESHOLD, LARGE)
    release_freed_blocks()


def release_freed_blocks() -> None:
    """Return the blocks to Linux that are free now; glibc goes on as before."""
    if library := _glibc():
        library.malloc_trim(0)


def keeps_freed_blocks() -> bool:
    """Return whether ``retain_heap`` has an effect on this system."""
    return _glibc() is not None


def memory_is_tight(device: torch.device, processes: int, growth: float = 1.0) -> bool:
    """Return whether a device's memory may be too small if its processes use more.

    Args:
        device: The device of this process.
        processes: Number of processes like this one on this machine.
        growth: Factor by which the memory of each process will grow.

    Returns:
        Also true if the device's memory is unknown.
    """
    total = total_memory(device)
    if device.type != "cpu":
        processes = 1
    return total is None or peak_memory(device) * growth * processes * HEADROOM > total


def peak_memory(device: torch.device | None = None) -> int:
    """Return the most memory that this process has used, in bytes: of the machine or of a GPU.

    Metal keeps no peak: there it is what its driver holds now, torch's cache included.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if device is not None and device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    # psutil has no peak on other systems, and Windows has no such module.
    import resource

    # ru_maxrss is in kilobytes on Linux and in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak(device: torch.device) -> None:
    """Let the peak of a GPU begin at what is in use now; the machine's own cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def release_cache(device: torch.device) -> None:
    """Return memory that torch keeps for later to the device: what a failed attempt has left."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def total_memory(device: torch.device) -> int | None:
    """Return the memory of a device in bytes, on a CPU at most the container's limit.

    Returns:
        None if it is unknown.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    if device.type != "cpu":
        return None
    amounts = [psutil.virtual_memory().total]
    for path in CGROUP_LIMITS:
        text = path.read_text().strip() if path.is_file() else ""
        amounts += [int(text)] if text.isdecimal() else []
    return min(amounts)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") else None
