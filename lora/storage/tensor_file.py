"""Read an adapter's safetensors file, which may come from a stranger."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lora.messages import tr, tr_mark
from lora.storage.metadata import WEIGHTS
from lora.storage.peft_format import AdapterError

HEADER_PER_TENSOR = 512
"""Header bytes allowed for each tensor that the model needs; about 150 are usual."""
ONLY_PICKLE = tr_mark(
    "{folder} has no {file}, only adapter_model.bin, a pickle file, which is never opened"
)


def stored_shapes(path: Path, expected: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor in a file; no tensor is read.

    Args:
        path: The file.
        expected: The number of tensors that the model needs.

    Raises:
        AdapterError: There is no such file, it is broken, or its header is far too large.
    """
    if not path.is_file():
        pickled = (path.parent / "adapter_model.bin").exists()
        text = ONLY_PICKLE if pickled else tr_mark("{folder} has no {file}")
        raise AdapterError(tr(text, folder=path.parent, file=WEIGHTS))
    # The size of an untrusted header is checked before anything parses it.
    with path.open("rb") as raw:
        header = int.from_bytes(raw.read(8), "little")
    if path.stat().st_size > header > 2**16 + HEADER_PER_TENSOR * expected:
        raise AdapterError(
            tr(
                "{path} has a header of {header} bytes, too many for the {expected} tensors "
                "that the model needs: it was made for another model",
                path=path,
                header=header,
                expected=expected,
            )
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise AdapterError(
            tr("{path} is not a complete safetensors file: {error}", path=path, error=error)
        ) from None


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return tensors of a file by their names.

    Raises:
        AdapterError: One is not of floating point, or not finite.
    """
    with safe_open(path, framework="pt") as file:
        for key in names:
            if (kind := file.get_slice(key).get_dtype()) not in ("F32", "F16", "BF16"):
                raise AdapterError(
                    tr(
                        "{path}: {key} is stored as {kind}; F32, F16 and BF16 load",
                        path=path,
                        key=key,
                        kind=kind,
                    )
                )
        # Copies: the file stays mapped while a tensor of it lives, and Windows neither moves
        # nor replaces a mapped file.
        weights = {key: file.get_tensor(key).clone() for key in names}
    for key, value in weights.items():
        if not value.isfinite().all():
            raise AdapterError(tr("{path}: {key} holds NaN or infinity", path=path, key=key))
    return weights
