"""The metadata of an adapter's file: how its base was quantized in training."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn

from lora.base import QUANTIZATIONS, quantization
from lora.messages import tr
from lora.storage.peft_format import AdapterError, printable
from lora.targets import linear_layers

WEIGHTS = "adapter_model.safetensors"
QUANTIZE = "quantize"
"""The key, which other programs do not read."""


def file_metadata(model: nn.Module, quantize: str | None) -> dict[str, str]:
    """Return the metadata of a model's adapter.

    Args:
        model: A model with adapters.
        quantize: How its base was quantized in training; None for as it is in ``model``.
    """
    # Not only adapted layers: an adapter may be on experts alone, which stay dense.
    kinds = [quantize, *(quantization(layer) for layer in linear_layers(model).values())]
    kind = next((kind for kind in kinds if kind), None)
    return {"format": "pt"} | ({QUANTIZE: kind} if kind else {})


def sort_metadata(path: Path) -> None:
    """Sort the metadata in a safetensors file, which safetensors writes in a random order.

    Equal adapters then have equal files.
    """
    with path.open("rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))


def read_quantization(directory: str | Path) -> str | None:
    """Return in which of ``lora.base.QUANTIZATIONS`` an adapter's base was when it was saved.

    Returns:
        None if it was dense, or another program wrote the file.

    Raises:
        AdapterError: The file names an unknown kind.
    """
    path = Path(directory) / WEIGHTS
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            kind = (file.metadata() or {}).get(QUANTIZE)
    except SafetensorError:
        return None  # load_adapter tells what is wrong with it
    if kind is not None and kind not in QUANTIZATIONS:
        raise AdapterError(
            tr(
                "{path} names the quantization {kind}; known are {quantizations}",
                path=path,
                kind=printable(repr(kind), 80),
                quantizations=", ".join(QUANTIZATIONS),
            )
        )
    return kind
