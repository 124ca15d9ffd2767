"""The tensors of an adapter under PEFT's names, to save them and to check a file."""

import torch
from torch import Tensor, nn

from lora.base import features
from lora.config import LoRAConfig
from lora.families.experts import expert_features, is_experts, names_in_file, split_factors
from lora.full_layers import full_layers
from lora.injection import updates
from lora.messages import tr
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
        for path, update in updates(model)
        for name, parameter in update.named_parameters(recurse=False)
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
        if is_experts(layer):
            for name, stored in names_in_file(path, layer).items():
                number, width, height = expert_features(layer, name)
                columns = number * config.at(f"{path}.{name}", path).r
                shapes[f"{PREFIX}{stored}.{SUFFIX['lora_A']}"] = (columns, width)
                shapes[f"{PREFIX}{stored}.{SUFFIX['lora_B']}"] = (height, columns)
            continue
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
    layers = dict(updates(model))
    factors = {path: layer.factors() for path, layer in layers.items()}
    r = max(A.shape[0] // layers[path].experts for path, (A, _) in factors.items())
    lora_alpha = max(1, round(max(layer.config.scale for layer in layers.values()) * r))
    tensors = {key: value.detach() for key, value in adapter_parameters(model).items()}
    for path, (A, B) in factors.items():
        missing = r - A.shape[0] // (experts := layers[path].experts)
        B = B * (layers[path].config.scale / (lora_alpha / r))
        A = nn.functional.pad(A.view(experts, -1, A.shape[1]), (0, 0, 0, missing)).flatten(0, 1)
        # The columns of B are grouped by rank, so the rows of zeros of all experts come last.
        B = nn.functional.pad(B, (0, missing * experts))
        tensors[f"{PREFIX}{path}.{SUFFIX['lora_A']}"] = A
        tensors[f"{PREFIX}{path}.{SUFFIX['lora_B']}"] = B
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
    for path, layer in updates(model):
        keys = [f"{PREFIX}{path}.{SUFFIX[name]}" for name in ("lora_A", "lora_B")]
        x = torch.randn(4, layer.in_features, generator=generator)
        A, B = (factor.detach().cpu().float() for factor in layer.factors())
        A, B = split_factors(A, B, layer.experts)
        expected = layer.config.scale * x @ A.mT @ B.mT
        A, B = split_factors(tensors[keys[0]], tensors[keys[1]], layer.experts)
        saved = lora_alpha / r * x @ A.mT @ B.mT
        if not (saved - expected).norm() <= tolerance * expected.norm():
            raise AdapterError(
                tr("the saved tensors of {path} compute another update than the layer", path=path)
            )
        for key in keys:
            del unchecked[key]
    for key, value in unchecked.items():
        if not torch.equal(tensors[key], value.detach().cpu().float()):
            raise AdapterError(tr("the saved {key} differs from the model's", key=key))
