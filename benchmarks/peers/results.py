"""results.json: the measurements, written one by one."""

import json
import os
import platform
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lora.storage.files import write_text

PACKAGES = ("torch", "lightning", "transformers", "peft", "accelerate", "trl")


class Results:
    """A file of measurements by name.

    Args:
        path: The file.
        command: The command that measures; it is stored with what it measured, and so are the date
            and the machine.
        fresh: Forget what is in the file.
    """

    def __init__(self, path: Path, command: str, fresh: bool = False) -> None:
        self.path = path
        self.made = {
            "command": command,
            "date": date.today().isoformat(),
            "machine": machine(),
        }
        self.cells: dict[str, Any] = {}
        if path.exists() and not fresh:
            self.cells = json.loads(path.read_text())

    def measure(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Measure what is not in the file yet, and write it at once.

        A failure is printed and stored; the next run measures it again.
        """
        if name in self.cells and "error" not in self.cells[name]:
            print(f"{name}: kept", flush=True)
            return
        print(f"{name} …", flush=True)
        try:
            cell = work()
        except Exception as error:  # a run takes an hour: measure the rest of it
            cell = {"error": f"{type(error).__name__}: {error}"}
            print(f"{name}: {cell['error']}", flush=True)
        self.cells[name] = cell | {"made": self.made}
        # One cell a line, so that the changes between two runs can be read.
        lines = (
            f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False, sort_keys=True)}"
            for key, value in sorted(self.cells.items())
        )
        write_text(self.path, "{" + ",\n".join(lines) + "}\n")


def machine() -> dict[str, Any]:
    """Describe the machine and the versions of a run."""
    text = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "cpu": names[0] if names else platform.machine(),
        "memory_gb": round(memory / 1e9),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES} | {"litgpt": "0.5.13"},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
