"""The experts of a mixture where all of a block are parameters of three dimensions.

transformers holds the experts of most families so: a product with each expert's part of
``gate_up_proj``, an activation, and a product with its part of ``down_proj``.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from lora.messages import tr

UP = ("gate_up_proj", "up_proj")
"""The parameter of the first product; with a gate, its rows are those of gate and up."""
DOWN = "down_proj"
LAYOUT = ("has_gate", "has_bias", "is_transposed", "num_experts")
"""Attributes that transformers gives to each class whose experts are such parameters."""


def is_experts(module: nn.Module) -> bool:
    """Return whether a module holds all experts of a block, and computes nothing else of its own.

    False for families with a norm after each expert, and for experts in a layout of their own.
    """
    down = getattr(module, DOWN, None)
    return (
        all(hasattr(module, name) for name in LAYOUT)
        and isinstance(down, nn.Parameter)
        and down.ndim == 3
        and not getattr(module, "has_post_expert_norm", False)
    )


def expert_parameters(experts: nn.Module) -> list[str]:
    """Return the names of the two parameters that adapters go on, in the order of definition.

    PEFT wraps them in this order, so the names in an adapter's file depend on it.
    """
    return [name for name, _ in experts.named_parameters(recurse=False) if name in (*UP, DOWN)]


def expert_features(experts: nn.Module, name: str) -> tuple[int, int, int]:
    """Return the numbers of experts, of input features and of output features of a parameter."""
    number, first, last = experts.get_parameter(name).shape
    # (experts, in, out) if transposed, else (experts, out, in).
    return (number, first, last) if experts.is_transposed else (number, last, first)


def names_in_file(path: str, experts: nn.Module) -> dict[str, str]:
    """Return under which path PEFT stores the update of each parameter, by the parameter's name.

    PEFT puts one wrapper around another: the last parameter has the outermost one.
    """
    names = expert_parameters(experts)
    last = len(names) - 1
    return {name: path + ".base_layer" * (last - i) for i, name in enumerate(names)}


def split_factors(A: Tensor, B: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Return the factors of each expert as views of factors in the layout of a file.

    Args:
        A: (experts * r, in), grouped by expert.
        B: (out, r * experts), grouped by rank.
        experts: The number of experts; 1 for a linear layer.

    Returns:
        A, (experts, r, in), and B, (experts, out, r).
    """
    rows = A.view(experts, -1, A.shape[-1])
    return rows, B.view(B.shape[0], -1, experts).permute(2, 0, 1)


def describe_experts(model: nn.Module, linear: Iterable[str], experts: Iterable[str]) -> str:
    """Return what experts a model has, for an error.

    Args:
        model: Any module.
        linear: The paths of its linear layers.
        experts: The paths of its modules with experts that adapters can go on.
    """
    if experts := sorted(experts):
        first, last = experts[0], experts[-1]
        if first == last:
            return tr("its experts are {path}", path=first)
        return tr("its experts are {first} to {last}", first=first, last=last)
    if any("experts" in path.split(".") for path in linear):
        return tr("its experts are linear layers, which projections adapts")
    for path, module in model.named_modules():
        if path.rpartition(".")[2] == "experts" and [*module.parameters()]:
            kind = type(module).__name__
            return tr(
                "no adapter can go on its experts, {kind}, which compute in a way of their own",
                kind=kind,
            )
    return tr("it is no mixture of experts")
