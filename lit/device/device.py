"""The device that a process computes on: found by name, and what it can do."""

import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from lit.messages import tr
from lora.config import ConfigError

DEVICES = ("auto", "cpu", "cuda", "mps")
"""What ``--device`` takes."""
BF16_CAPABILITY = (8, 0)
"""The first compute capability with bfloat16 units: Ampere."""
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
"""The names in ``torch.cpu.get_capabilities`` of a CPU's bfloat16 units, on x86 and on ARM."""
CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux names the CPU."""
INT8_CAPABILITY = (7, 5)
"""The first compute capability with 8-bit matrix products: Turing."""


@dataclass(frozen=True)
class Traits:
    """What a device can do, apart from its free memory.

    Args:
        kind: ``cpu``, ``cuda`` or ``mps``.
        name: What the maker calls it.
        capability: The compute capability of a CUDA device; None for others.
        cpu_bf16: Whether a CPU has instructions for bfloat16.
        flash: Whether torch's CUDA build has flash attention; its Windows builds lack it.
    """

    kind: str
    name: str
    capability: tuple[int, int] | None = None
    flash: bool = True
    cpu_bf16: bool = True

    @property
    def has_bf16(self) -> bool:
        """Whether a CUDA device computes in bfloat16 without emulation."""
        # torch.cuda.is_bf16_supported counts emulation.
        return self.capability is not None and self.capability >= BF16_CAPABILITY

    def __str__(self) -> str:
        if self.capability is None:
            return self.name
        return f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]})"


def choose_device(asked: str = "auto") -> torch.device:
    """Return the device of a name; ``auto`` prefers CUDA to MPS, and MPS to the CPU.

    Args:
        asked: One of DEVICES, perhaps with an index, like ``cuda:1``; or Lightning's ``gpu``.

    Raises:
        ConfigError: There is no such device; the message names it as the argument `device`.
    """
    kind, colon, index = asked.partition(":")
    found = [name for name in ("cuda", "mps") if _is_available(name)]
    if colon and (kind != "cuda" or not index.isdecimal()):
        raise ConfigError(
            tr(
                "`device` is {asked}; choose {devices}, or a CUDA device like cuda:1",
                asked=asked,
                devices=", ".join(DEVICES),
            )
        )
    if kind in ("auto", "gpu"):
        if not found and kind == "gpu":
            raise ConfigError(
                tr("`device` is gpu, and {reason}: set `device` to cpu", reason=_reason("cuda"))
            )
        return torch.device(found[0] if found else "cpu")
    if kind not in DEVICES:
        raise ConfigError(
            tr("`device` is {asked}; choose {devices}", asked=asked, devices=", ".join(DEVICES))
        )
    if kind != "cpu" and kind not in found:
        raise ConfigError(
            tr(
                "`device` is {asked}, and {reason}: set `device` to cpu",
                asked=asked,
                reason=_reason(kind),
            )
        )
    if kind == "cuda" and int(index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(
            tr(
                "`device` is {asked}, and there are {count} CUDA devices: the last is cuda:{last}",
                asked=asked,
                count=count,
                last=count - 1,
            )
        )
    return torch.device(asked)


def traits(device: torch.device) -> Traits:
    """Return what a device can do."""
    return _traits(device.type, device.index)


def weakest_traits(device: torch.device, devices: object) -> Traits:
    """Return the traits of the device of lowest compute capability among those of a run.

    Args:
        device: Their kind.
        devices: ``trainer.devices``: a number of devices, -1 or ``auto`` for all, or a list of
            indices, also as text like ``0,2``.
    """
    if device.type != "cuda" or device.index is not None:
        return traits(device)
    text = str(devices).strip("[] ")
    if "," in text or isinstance(devices, list):
        indices = [int(part) for part in text.split(",") if part.strip().isdecimal()]
    else:
        count = torch.cuda.device_count()
        indices = [*range(min(int(text), count) if text.isdecimal() else count)]
    found = [traits(torch.device("cuda", index)) for index in indices or [0]]
    return min(found, key=lambda known: known.capability or (0, 0))


def check_quantization(kind: str | None, device: Traits) -> None:
    """Check that bitsandbytes can compute a quantization on a device.

    Raises:
        ConfigError: It cannot.
    """
    if kind is None:
        return
    if device.kind not in ("cpu", "cuda"):
        raise ConfigError(
            tr(
                "`quantize` is {kind}, which is not known to work on {device}: use a CPU or an "
                "NVIDIA GPU, or leave `quantize` out",
                kind=kind,
                device=device.kind,
            )
        )
    if kind == "int8" and device.capability is not None and device.capability < INT8_CAPABILITY:
        raise ConfigError(
            tr(
                "`quantize` is int8, and {device} has no 8-bit matrix product (compute "
                "capability 7.5 has): set `quantize` to nf4",
                device=device,
            )
        )


@lru_cache
def _traits(kind: str, index: int | None) -> Traits:
    if kind == "cuda":
        name, capability = (
            torch.cuda.get_device_name(index),
            torch.cuda.get_device_capability(index),
        )
        return Traits(kind, name, capability, torch.backends.cuda.is_flash_attention_available())
    if kind == "cpu":
        return Traits(kind, "CPU", cpu_bf16=_cpu_has_bf16())
    return Traits(kind, {"mps": "Apple GPU"}.get(kind, kind))


def cpu_name() -> str:
    """Return the name of the CPU and its instruction sets; virtual machines may hide the name."""
    lines = CPU_INFO.read_text(errors="replace").splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    sets = sorted(name for name, found in torch.cpu.get_capabilities().items() if found is True)
    return ", ".join([*(names[:1] or [platform.processor()]), *sets])


def _cpu_has_bf16() -> bool:
    """Return whether the CPU has instructions for bfloat16, as far as torch knows."""
    found = torch.cpu.get_capabilities()
    known = [found[name] for name in BF16_INSTRUCTIONS if name in found]
    return any(known) or not known


def _is_available(kind: str) -> bool:
    return torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()


def _reason(kind: str) -> str:
    """Return why a kind of device cannot be used."""
    if kind == "mps":
        built = torch.backends.mps.is_built()
        return (
            tr("torch {version} finds no Apple GPU", version=torch.__version__)
            if built
            else tr("torch {version} is not for macOS", version=torch.__version__)
        )
    if torch.version.cuda is None and torch.version.hip is None:
        return tr("torch {version} is a build without CUDA", version=torch.__version__)
    return tr(
        "torch {version} finds no CUDA device (nvidia-smi lists what the driver sees)",
        version=torch.__version__,
    )
