"""Replacements: modules that take the place of others in a model and can be taken out again."""

from abc import ABC, abstractmethod

from torch import nn


class Replacement(nn.Module, ABC):
    """A module that takes the place of another one in a model.

    Adapters and faster layers are replacements. They are visible in ``print(model)`` and work
    after ``copy.deepcopy`` and pickle, because no method of another instance is replaced.
    """

    @abstractmethod
    def original(self) -> nn.Module:
        """Return the module that this one replaced, with its current parameters."""

    def kind(self) -> type:
        """Return the class of the module that this one replaced."""
        return type(self.original())

    def folded(self) -> nn.Module:
        """Return a plain module, not a replacement, that computes the same as this one."""
        return self.original()


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module at a path of a model."""
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def replacements(model: nn.Module) -> list[tuple[str, Replacement]]:
    """Return every replacement inside a model with its path, inner ones before outer ones."""
    outer_first = [
        (path, module)
        for path, module in model.named_modules(remove_duplicate=False)
        if path and isinstance(module, Replacement)
    ]
    return outer_first[::-1]
