"""Check the size of an adapter's update against the weights that it changes."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lora.base import compute_dtype, features
from lora.config import LoRAConfig
from lora.families.experts import expert_features, is_experts, names_in_file, split_factors
from lora.messages import tr
from lora.storage.peft_format import AdapterError
from lora.storage.peft_tensors import PREFIX, SUFFIX
from lora.targets import select_layers

MAX_RATIO = 1e4
"""The largest norm of an update, relative to that of its weight. Trained adapters are below 1."""
PROBES = 8
"""Random inputs that estimate the norm of a weight, to about a factor of 2."""


class Weight(NamedTuple):
    """A weight that an adapter changes: its norm, its update's path in a file, and its settings."""

    norm: float
    stored: str
    config: LoRAConfig
    experts: int = 1


@torch.no_grad()
def check_sizes(model: nn.Module, config: LoRAConfig, tensors: dict[str, Tensor]) -> None:
    """Check that no update is absurdly large: its products would overflow or mean nothing.

    Args:
        model: The base model, without adapters.
        config: The adapter's settings.
        tensors: The adapter's tensors by their names in a file.

    Raises:
        AdapterError: A norm is more than MAX_RATIO times that of the weight, or not finite; or a
            weight of the base is not finite.
    """
    targets, full = select_layers(model, config)
    weights = dict(_weights(targets, config))
    if broken := [name for name, weight in weights.items() if not math.isfinite(weight.norm)]:
        raise AdapterError(
            tr(
                "the base model's {name} is not finite: the base model is damaged. "
                "Download it again, or choose another one",
                name=broken[0],
            )
        )
    # A single weight may be zero, so each update is also compared with the mean weight.
    mean = sum(weight.norm for weight in weights.values()) / len(weights)
    for name, (norm, stored, settings, experts) in weights.items():
        path = name.removesuffix(".weight")
        A, B = (tensors[f"{PREFIX}{stored}.{SUFFIX[name]}"] for name in ("lora_A", "lora_B"))
        update = settings.scale * _product_norm(*split_factors(A, B, experts))
        _compare(tr("the update of {path}", path=path), update, norm, mean)
        if (magnitude := tensors.get(f"{PREFIX}{stored}.{SUFFIX['magnitude']}")) is not None:
            _compare(tr("the magnitude of {path}", path=path), _norm(magnitude), norm, mean)
    for path, module in full.items():
        for name, parameter in module.named_parameters():
            trained = _norm(tensors[f"{PREFIX}{path}.{name}"])
            _compare(f"{path}.{name}", trained, _norm(parameter), mean)


def _weights(targets: dict[str, Any], config: LoRAConfig) -> Iterator[tuple[str, Weight]]:
    """Yield every weight that an adapter changes, with its name in the model."""
    for path, layer in targets.items():
        if not is_experts(layer):
            yield f"{path}.weight", Weight(_weight_norm(layer), path, config.at(path))
            continue
        for name, stored in names_in_file(path, layer).items():
            parameter, own = layer.get_parameter(name), f"{path}.{name}"
            # Expert by expert: a copy of all in a wider dtype would take much memory.
            norm = math.hypot(*(_norm(weight) for weight in parameter))
            number = expert_features(layer, name)[0]
            yield own, Weight(norm, stored, config.at(own, path), number)


def _compare(name: str, actual: float, norm: float, mean: float) -> None:
    # Written so that NaN and infinity are refused.
    if not actual <= MAX_RATIO * max(norm, mean) < math.inf:
        raise AdapterError(
            tr(
                "{name} has the norm {actual:.3g}, and the weight that it changes has "
                "{norm:.3g}: more than {limit:g} times as much is refused, since such "
                "an adapter computes nothing of use. It is damaged, its lora_alpha is "
                "wrong, or it was made for another model",
                name=name,
                actual=actual,
                norm=norm,
                limit=MAX_RATIO,
            )
        )


def _norm(tensor: Tensor) -> float:
    return float(tensor.detach().double().norm())


def _product_norm(A: Tensor, B: Tensor) -> float:
    """Return the norm of B A of all experts, computed from (r, r) matrices in float64.

    Args:
        A: (experts, r, in).
        B: (experts, out, r).
    """
    A, B = A.double(), B.double()
    square = ((A @ A.mT) * (B.mT @ B)).sum()
    # Rounding may leave a small negative number where B A is almost zero; NaN stays NaN.
    return float(square.clamp_min(0).sqrt())


def _weight_norm(layer: nn.Linear) -> float:
    """Return an estimate of a weight's norm; the layer is called, so it may be quantized."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(PROBES, features(layer)[0], generator=generator)
    y = layer(x.to(layer.weight.device, compute_dtype(layer))).float()
    y = y if layer.bias is None else y - layer.bias.float()
    # The mean of |W x|² over random x is |W|².
    return float(y.double().norm()) / math.sqrt(PROBES)
