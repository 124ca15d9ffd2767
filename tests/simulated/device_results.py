"""Run rows on a simulated device, in a process of its own: the shim must precede torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from device_shim import compile_shim, compiler

FOLDER = Path(__file__).parent
PLANTED = sorted(
    [
        "copy to",
        "blocking copy from",
        "blocking pageable copy to",
        "float64",
        "generator",
        "random numbers of 64 bits",
        *["read"] * 4,
    ]
)
"""What ``device_training.plant`` does; the watch must see each once."""


def simulate(device: str, rows: dict[str, dict], config: pytest.Config) -> dict[str, Any]:
    """Return what was counted, by the name of the row; skip where nothing can be compiled."""
    if sys.platform != "linux":
        pytest.skip("the shim is loaded between torch's libraries, which is done for Linux only")
    if compiler() is None:
        pytest.skip("no C++ compiler here: the simulated device needs a shim of 60 lines")
    assert config.cache is not None
    shim = compile_shim(device, config.cache.mkdir("simulated"))
    command = [sys.executable, str(FOLDER / "device_run.py"), device, str(shim)]
    run = subprocess.run(
        [*command, *map(json.dumps, rows.values())],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    results = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert len(results) == 1 + len(rows), run.stderr[-3000:]
    assert results[0]["planted"] == PLANTED
    return dict(zip(rows, results[1:], strict=True))


def counted(result: dict[str, Any], phase: str, *kinds: str) -> dict[str, int]:
    """Return the events of some kinds in a phase, by kind and place."""
    assert "error" not in result, result["error"]
    counts = result["counts"].get(phase, {})
    return {
        key: n for key, n in counts.items() if any(kind in key.split(" @ ")[0] for kind in kinds)
    }
