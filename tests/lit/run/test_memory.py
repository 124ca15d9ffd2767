"""Memory that is freed: kept for the next step, or given back."""

import os
import subprocess
import sys

import pytest

CODE = """
import resource
from pathlib import Path
import torch
from lit.run.memory import retain_heap, trim_heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    held = [torch.ones(5_000_000) for _ in range(4)]

retain_heap()
{then}
before = resident()
# A block that is freed is a little too small for one of its size: some turns find their places.
for _ in range(10):
    step()
kept, met = resident() - before, faults()
step()
print(kept, faults() - met)
"""
STEP = 4 * 20_000_000
"""Bytes."""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize("then", ["", "trim_heap()"])
def test_freed_memory_is_kept_for_the_next_step_or_returned_to_linux(then: str) -> None:
    command = [sys.executable, "-c", CODE.format(then=then)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    kept, faults = map(int, said.split())
    if then:
        assert kept < STEP / 4
        assert faults
    else:
        assert kept > STEP / 2
        assert faults <= 5
