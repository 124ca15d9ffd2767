"""The one way to change a model: a module takes the place of another, and can give it back."""

from abc import ABC, abstractmethod

from torch import nn


class Replacement(nn.Module, ABC):
    """A module that takes the place of another one in a model.

    Adapters and faster layers are replacements. They show in ``print(model)``, and they survive
    ``copy.deepcopy`` and pickle, because no instance of another class is changed.
    """

    @abstractmethod
    def original(self) -> nn.Module:
        """Return the module that this one replaced, with the parameters that it has now."""

    def folded(self) -> nn.Module:
        """Return a module without replacements that computes the same as this one."""
        return self.original()


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a path of a model."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def replacements(model: nn.Module) -> list[tuple[str, Replacement]]:
    """Return every replacement below a model's root with its path, inner ones before outer ones."""
    found = [
        (path, module)
        for path, module in model.named_modules(remove_duplicate=False)
        if path and isinstance(module, Replacement)
    ]
    return found[::-1]
