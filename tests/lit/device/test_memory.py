"""How much memory there is; freed memory is kept for the next step, or returned to Linux."""

import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from lit.device import memory

CODE = """
import resource
from pathlib import Path
import torch
from lit.device.memory import retain_heap, trim_heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    held = [torch.ones(5_000_000) for _ in range(4)]

retain_heap()
{then}
before = resident()
# A freed block is slightly too small for one of its size: it takes a few steps to fit all.
for _ in range(10):
    step()
kept, before = resident() - before, faults()
step()
print(kept, faults() - before)
"""
STEP = 4 * 20_000_000
"""Bytes of a step."""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("then", ["", "trim_heap()"])
def test_freed_memory_is_kept_for_the_next_step_or_returned_to_linux(then: str) -> None:
    command = [sys.executable, "-c", CODE.format(then=then)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    output = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    kept, faults = map(int, output.split())
    if then:
        assert kept < STEP / 4
        assert faults
    else:
        assert kept > STEP / 2
        assert faults <= 5


SYSTEMS: dict[str, tuple[str, str, int, int]] = {
    "linux": ("linux", "cpu", 7 * 1024, 1000),
    "macos": ("darwin", "cpu", 7, 1000),
    "windows": ("win32", "cpu", 5, 1000),
    "metal": ("darwin", "mps", 3, 200),
}
"""Platform and device; the peak and the total of the numbers that the libraries give below."""


@pytest.mark.parametrize("system", SYSTEMS)
def test_memory_is_read_as_each_system_gives_it(
    system: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    platform, kind, peak, total = SYSTEMS[system]
    usage = SimpleNamespace(ru_maxrss=7)
    monkeypatch.setattr(resource, "getrusage", lambda who: usage)
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=4, peak_wset=5))
    monkeypatch.setattr(psutil, "Process", lambda: process)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1000))
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 200)
    monkeypatch.setattr(memory, "sys", SimpleNamespace(platform=platform))
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (limit,))
    device = torch.device(kind)
    for text, expected in (("max\n", total), ("900\n", 900 if kind == "cpu" else total)):
        limit.write_text(text)
        assert (memory.peak_memory(device), memory.total_memory(device)) == (peak, expected)
