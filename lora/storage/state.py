"""The state of an adapter in a checkpoint: exactly the tensors that train."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora.config import ConfigError
from lora.injection import trainable_parameters
from lora.messages import tr


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that train, keyed by their path in the model; base weights never."""
    return {name: p.detach() for name, p in trainable_parameters(model).items()}


@torch.no_grad()
def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors into the parameters that train; names and shapes must match exactly.

    Raises:
        ConfigError: A name or a shape differs; nothing was copied.
    """
    parameters = trainable_parameters(model)
    expected = {name: tuple(p.shape) for name, p in parameters.items()}
    actual = {name: tuple(p.shape) for name, p in state.items()}
    if different := sorted(set(expected.items()) ^ set(actual.items())):
        name = different[0][0]
        raise ConfigError(
            tr(
                "the adapter in the checkpoint does not match these settings: {name} is "
                "{saved} in the checkpoint and {needed} in the model",
                name=name,
                saved=actual.get(name, tr("missing")),
                needed=expected.get(name, tr("absent")),
            )
        )
    for name, parameter in parameters.items():
        parameter.copy_(state[name])
