"""Check the size of an adapter's update against the weights that it changes."""

import math

import torch
from torch import Tensor, nn

from lora.base import compute_dtype, features
from lora.config import LoRAConfig
from lora.storage.peft_format import AdapterError
from lora.storage.peft_tensors import PREFIX, SUFFIX
from lora.targets import select_layers

MAX_RATIO = 1e4
"""The largest norm of an update, relative to that of its weight. Trained adapters are below 1."""
PROBES = 8
"""Random inputs that estimate the norm of a weight, to about a factor of 2."""


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
    norms = {path: _weight_norm(layer) for path, layer in targets.items()}
    if broken := [path for path, norm in norms.items() if not math.isfinite(norm)]:
        raise AdapterError(
            f"the base model's {broken[0]}.weight is not finite: the base model is damaged. "
            "Download it again, or choose another one"
        )
    # A single weight may be zero, so each update is also compared with the mean weight.
    mean = sum(norms.values()) / len(norms)
    for path, norm in norms.items():
        A, B = (tensors[f"{PREFIX}{path}.{SUFFIX[name]}"] for name in ("lora_A", "lora_B"))
        _compare(f"the update of {path}", config.at(path).scale * _product_norm(B, A), norm, mean)
        if (magnitude := tensors.get(f"{PREFIX}{path}.{SUFFIX['magnitude']}")) is not None:
            _compare(f"the magnitude of {path}", _norm(magnitude), norm, mean)
    for path, module in full.items():
        for name, parameter in module.named_parameters():
            trained = _norm(tensors[f"{PREFIX}{path}.{name}"])
            _compare(f"{path}.{name}", trained, _norm(parameter), mean)


def _compare(name: str, actual: float, norm: float, mean: float) -> None:
    # Written so that NaN and infinity are refused.
    if not actual <= MAX_RATIO * max(norm, mean) < math.inf:
        raise AdapterError(
            f"{name} has the norm {actual:.3g}, and the weight that it changes has {norm:.3g}: "
            f"more than {MAX_RATIO:g} times as much is refused, since such an adapter computes "
            "nothing of use. It is damaged, its lora_alpha is wrong, or it was made for another "
            "model"
        )


def _norm(tensor: Tensor) -> float:
    return float(tensor.detach().double().norm())


def _product_norm(B: Tensor, A: Tensor) -> float:
    """Return the norm of B A, computed from (r, r) matrices in float64."""
    A, B = A.double(), B.double()
    square = ((A @ A.T) * (B.T @ B)).sum()
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
