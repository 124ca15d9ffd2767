"""The tensors of an adapter under PEFT's names, to save them and to check a file."""

import torch
from torch import Tensor, nn

from lora.base import features
from lora.config import LoRAConfig
from lora.full_layers import full_layers
from lora.injection import lora_layers
from lora.storage.peft_format import AdapterError
from lora.targets import select_layers

PREFIX = "base_model.model."
SUFFIX = {
    "lora_A": "lora_A.weight",
    "lora_B": "lora_B.weight",
    "magnitude": "lora_magnitude_vector",
}
"""PEFT's name for each of our parameter names."""


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that train, keyed by their names in an adapter file."""
    named = {
        f"{PREFIX}{path}.{SUFFIX[name]}": parameter
        for path, layer in lora_layers(model)
        for name, parameter in layer.named_parameters(recurse=False)
    }
    for path, module in full_layers(model):
        named |= {f"{PREFIX}{path}.{name}": value for name, value in module.trained.items()}
    return named


def expected_shapes(model: nn.Module, config: LoRAConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that an adapter file must hold for a model.

    Args:
        model: A model without adapters.
        config: The adapter's settings.

    Raises:
        ConfigError: The config names layers that the model does not have.
    """
    targets, full = select_layers(model, config)
    shapes: dict[str, tuple[int, ...]] = {}
    for path, layer in targets.items():
        (width, height), r = features(layer), config.at(path).r
        shapes[f"{PREFIX}{path}.{SUFFIX['lora_A']}"] = (r, width)
        shapes[f"{PREFIX}{path}.{SUFFIX['lora_B']}"] = (height, r)
        if config.variant == "dora":
            shapes[f"{PREFIX}{path}.{SUFFIX['magnitude']}"] = (height,)
    for path, module in full.items():
        for name, parameter in module.named_parameters():
            shapes[f"{PREFIX}{path}.{name}"] = tuple(parameter.shape)
    return shapes


def tied_tensors(model: nn.Module, config: LoRAConfig) -> list[list[str]]:
    """Return the names in an adapter file of the full layers that are one matrix in a model.

    Args:
        model: A model without adapters.
        config: The adapter's settings.
    """
    names: dict[int, list[str]] = {}
    for path, module in select_layers(model, config)[1].items():
        for name, parameter in module.named_parameters():
            names.setdefault(id(parameter), []).append(f"{PREFIX}{path}.{name}")
    return [group for group in names.values() if len(group) > 1]


@torch.no_grad()
def to_portable(model: nn.Module) -> tuple[int, int, dict[str, Tensor]]:
    """Return the adapter in the form that most tools read: one rank and one integer alpha.

    Factors of a smaller rank are padded with zeros. Where a layer has another scale than the file,
    B is multiplied by the quotient. A PiSSA layer becomes the update of rank 2r that fits the
    original base.

    Returns:
        The rank, the alpha, and the tensors by their names in a file, float32 on the CPU.
    """
    layers = dict(lora_layers(model))
    factors = {path: layer.factors() for path, layer in layers.items()}
    r = max(A.shape[0] for A, _ in factors.values())
    lora_alpha = max(1, round(max(layer.config.scale for layer in layers.values()) * r))
    tensors = {key: value.detach() for key, value in adapter_parameters(model).items()}
    for path, (A, B) in factors.items():
        missing = r - A.shape[0]
        B = B * (layers[path].config.scale / (lora_alpha / r))
        tensors[f"{PREFIX}{path}.{SUFFIX['lora_A']}"] = nn.functional.pad(A, (0, 0, 0, missing))
        tensors[f"{PREFIX}{path}.{SUFFIX['lora_B']}"] = nn.functional.pad(B, (0, missing))
    # A tied matrix is saved under each of its names; safetensors refuses shared memory.
    return r, lora_alpha, {key: value.cpu().float().clone() for key, value in tensors.items()}


@torch.no_grad()
def check_portable(
    model: nn.Module, r: int, lora_alpha: float, tensors: dict[str, Tensor], tolerance: float = 1e-4
) -> None:
    """Check that saved tensors compute what the model's layers compute, on random inputs.

    Raises:
        AdapterError: The update of a layer, or a tensor that is saved unchanged, differs.
    """
    generator = torch.Generator().manual_seed(0)
    unchecked = adapter_parameters(model)
    for path, layer in lora_layers(model):
        keys = [f"{PREFIX}{path}.{SUFFIX[name]}" for name in ("lora_A", "lora_B")]
        x = torch.randn(4, layer.in_features, generator=generator)
        A, B = (factor.detach().cpu().float() for factor in layer.factors())
        expected = layer.config.scale * x @ A.T @ B.T
        saved = lora_alpha / r * x @ tensors[keys[0]].T @ tensors[keys[1]].T
        if not (saved - expected).norm() <= tolerance * expected.norm():
            raise AdapterError(f"the saved tensors of {path} compute another update than the layer")
        for key in keys:
            del unchecked[key]
    for key, value in unchecked.items():
        if not torch.equal(tensors[key], value.detach().cpu().float()):
            raise AdapterError(f"the saved {key} differs from the model's")
