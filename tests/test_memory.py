"""Memory that is freed: kept for the next step, or given back."""

import subprocess
import sys

import pytest

CODE = """
import resource
import torch
from lit.memory import keep_freed, return_freed

keep_freed()
{then}

def step():
    held = [torch.ones(5_000_000) for _ in range(4)]

# A block that is freed is a little too small for one of its size: some turns find their places.
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 5 * 4 * 20_000_000 // 4096


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize(("then", "least", "most"), [("", 0, 0.1), ("return_freed()", 0.9, 2)])
def test_blocks_of_a_step_are_those_of_the_step_before_until_they_are_to_be_returned(
    then: str, least: float, most: float
) -> None:
    command = [sys.executable, "-c", CODE.format(then=then)]
    # Without huge pages, so that pages can be counted.
    env = {"THP_MEM_ALLOC_ENABLE": "0", "OMP_NUM_THREADS": "1"}
    said = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    assert least * PAGES <= int(said) <= most * PAGES
