"""Several adapters of one base model, which share its weights."""

from torch import nn

from lora.layer import Adapter
from lora.messages import tr
from lora.replacement import replace_module, replacements


class AdapterSet:
    """Keeps adapters of one model, and puts at most one of them on the model.

    An adapter is kept as the modules that replace layers of the model, of any variant. Putting one
    on replaces these layers, as ``lora.injection.inject`` does, and taking it off puts the
    originals back. So a forward pass costs what it costs with one adapter alone, and the base
    computes without any. The whole process sees the change: one thread at a time may use the model.

    Args:
        model: A model without adapters.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.active: str | None = None
        self._layers: dict[str, dict[str, Adapter]] = {}

    @property
    def names(self) -> list[str]:
        """Return the names of the adapters, in the order they were kept."""
        return list(self._layers)

    def keep(self, name: str) -> None:
        """Take the adapter that was injected into the model off, and keep it under a name.

        Raises:
            ValueError: The name is taken, an adapter of the set is on the model, or none is.
        """
        if name in self._layers or self.active is not None:
            raise ValueError(
                tr("{name} is an adapter of this set already", name=self.active or name)
            )
        layers = {
            path: module for path, module in replacements(self.model) if isinstance(module, Adapter)
        }
        if not layers:
            raise ValueError(tr("this model has no adapter to keep"))
        self._layers[name] = layers
        self.active = name
        self.use(None)

    def use(self, name: str | None) -> None:
        """Put an adapter on the model in place of the current one; None leaves the base alone.

        Raises:
            KeyError: The set has no adapter of this name.
        """
        if name == self.active:
            return
        new = {} if name is None else self._layers[name]
        if self.active is not None:
            for path, layer in self._layers[self.active].items():
                replace_module(self.model, path, layer.original())
        for path, layer in new.items():
            replace_module(self.model, path, layer)
        self.active = name
