"""results.json: what was measured, kept as it comes."""

import json
import os
import platform
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lora.files import write_text

PACKAGES = ("torch", "lightning", "transformers", "peft", "accelerate", "trl")


class Results:
    """A file of measurements by name.

    Args:
        path: The file.
        command: What measures; it stands beside what it measured.
        fresh: Forget what is in it.
    """

    def __init__(self, path: Path, command: str, fresh: bool = False) -> None:
        self.path = path
        self.made = {"command": command, "date": date.today().isoformat()}
        self.cells: dict[str, Any] = {}
        if path.exists() and not fresh:
            self.cells = json.loads(path.read_text())

    def measure(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Measure what is not in the file yet, and write it at once.

        What fails is told, and measured again in the next run.
        """
        if name in self.cells and "error" not in self.cells[name]:
            print(f"{name}: kept", flush=True)
            return
        print(f"{name} …", flush=True)
        try:
            found = work()
        except Exception as error:  # the rest of a run of an hour goes on
            found = {"error": f"{type(error).__name__}: {error}"}
            print(f"{name}: {found['error']}", flush=True)
        self.cells[name] = found | {"made": self.made}
        text = json.dumps(self.cells, indent=None, ensure_ascii=False, sort_keys=True)
        # A cell a line, so that two runs can be compared.
        write_text(self.path, text.replace('}, "', '},\n"') + "\n")


def machine() -> dict[str, Any]:
    """Where and with what a run is made."""
    text = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "cpu": names[0] if names else platform.machine(),
        "memory_gb": round(pages / 1e9),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES} | {"litgpt": "0.5.13"},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
