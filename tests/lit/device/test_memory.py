"""Freed memory is kept for the next step, or returned to Linux."""

import os
import subprocess
import sys

import pytest

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
