"""The page of a machine: versions, what would be chosen, and the outcome of each check."""

import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from lit.device.device import traits
from lit.device.kernels import choose_kernel
from lit.device.memory import total_memory
from lit.device.precision import base_dtype, choose_precision
from lit.diagnosis.machine import Outcome
from lit.messages import tr, tr_mark
from lora.config import ConfigError
from lora.storage.files import write_text

TITLE = "# lit-lora on "
LIBRARIES = ("torch", "lightning", "transformers", "bitsandbytes", "accelerate", "peft")


def describe(device: torch.device) -> dict[str, str]:
    """Return what is known about a machine without computing: no path and no name of a person."""
    known, memory = traits(device), total_memory(device)
    chosen = {
        model: choose_precision(known, model, quantized)
        for model, quantized in (("llama", False), ("gemma3_text", False))
    }
    quantized = choose_precision(known, "llama", quantized=True)
    release, _, _ = platform.release().partition("-")
    return {
        tr_mark("system"): f"{platform.system()} {release}, {platform.machine()}",
        "Python": platform.python_version(),
        tr_mark("libraries"): ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
        tr_mark("device"): str(known),
        tr_mark("threads of torch"): str(torch.get_num_threads()),
        tr_mark("memory of the device"): tr("unknown")
        if memory is None
        else f"{memory / 1e9:.1f} GB",
        tr_mark("CUDA of torch"): torch.version.cuda or tr("none"),
        tr_mark("precision"): f"{chosen['llama'].value} ({chosen['llama'].reason})",
        tr_mark("precision with a quantized base"): f"{quantized.value} ({quantized.reason})",
        tr_mark("attention of packed rows"): choose_kernel(
            known, base_dtype(chosen["llama"].value), head_size=64, plain=True, window=None
        ),
        tr_mark(
            "precision of Gemma 3"
        ): f"{chosen['gemma3_text'].value} ({chosen['gemma3_text'].reason})",
    }


def render(facts: dict[str, str], outcomes: Sequence[Outcome]) -> str:
    """Return the page as Markdown."""
    failed = [outcome.name for outcome in outcomes if outcome.result == "failed"]
    verdict = f"Failed: {', '.join(failed)}." if failed else "Every check passed or does not apply."
    lines = [
        f"{TITLE}{facts['device']}, {facts['system']}",
        "",
        f"{verdict} Written by `python -m lit.doctor` on {date.today().isoformat()}.",
        "",
        *_table(("", ""), facts.items()),
        "",
        *_table(
            ("check", "result", "measured", "seconds"),
            [(o.name, o.result, o.text, f"{o.seconds:.1f}") for o in outcomes],
        ),
    ]
    return "\n".join(lines) + "\n"


def check_page(path: Path) -> None:
    """Check that a page may be written, before the checks take their minutes.

    Raises:
        ConfigError: The file is not a page of this command, or its folder does not exist.
    """
    if not path.absolute().parent.is_dir():
        raise ConfigError(
            tr(
                "{parent} is no folder: give --output FILE in a folder that exists",
                parent=path.parent,
            )
        )
    if path.is_symlink() or (path.exists() and not _is_page(path)):
        raise ConfigError(
            tr("{path} is not a page of this command: give another --output", path=path)
        )


def write_page(path: Path, text: str) -> None:
    """Write the page; an older page of this command is replaced."""
    write_text(path, text)


def _is_page(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(TITLE)) == TITLE.encode()


def _table(headers: Sequence[str], rows: object) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(' '.join(cell.split()).replace('|', '/') for cell in cells)} |"

    return [line(headers), "|" + "---|" * len(headers), *(line(row) for row in rows)]  # type: ignore[attr-defined]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return tr("not installed")
