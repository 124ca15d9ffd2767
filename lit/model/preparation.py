"""An adapted model, ready to train: loaded, adapted, made faster, and checked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.checkpoint import noop_context_fn
from transformers import PreTrainedModel

from lit.device.memory import release_freed_blocks
from lit.device.precision import Choice, needs_dense_base
from lit.fast_layers.library import choose_library, fast_kinds
from lit.fast_layers.product_times import BF16
from lit.fast_layers.table import use_bf16_products, use_fast_layers
from lit.messages import tr
from lit.model.base import load_base
from lit.run.console import print_rank0
from lora.base import is_quantized
from lora.config import ConfigError, LoRAConfig
from lora.full_layers import tied_groups
from lora.injection import inject
from lora.storage.continuing import continue_adapter
from lora.targets import linear_layers


@dataclass(frozen=True)
class ModelSpec:
    """How to make an adapted model; the fields are those of ``LoRAModule``."""

    base: str
    revision: str | None
    quantize: str | None
    lora: LoRAConfig
    gradient_checkpointing: bool
    fast_layers: bool
    seed: int
    adapter: str | None = None
    """The folder of an adapter to go on from."""
    library: str = ""
    """What computes frozen float32 layers on a CPU: ``torch``, ``oneDNN`` or ``bfloat16``.

    Empty to choose one of the first two.
    """
    loaded: PreTrainedModel | None = None
    """The base, if it is loaded already, on the device and in the dtype of the run."""

    def make(self, dtype: torch.dtype, device: torch.device, sharded: bool) -> PreTrainedModel:
        """Load the base, put the adapters on, and use fast layers.

        Args:
            dtype: The dtype of the base.
            device: The device to load it on.
            sharded: Whether its weights will be sharded among ranks.

        Raises:
            ConfigError: It does not load, does not suit the adapter, or is quantized and sharded.
        """
        if self.loaded is not None:
            return self._adapt(self.loaded, sharded)
        print_rank0(tr("model  loading {base} …", base=self.base))
        model = load_base(self.base, self.revision, dtype, self.quantize, device)
        if sharded and any(is_quantized(layer) for layer in linear_layers(model).values()):
            raise ConfigError(
                tr(
                    "{base} is stored quantized, and this trainer.strategy shards only dense "
                    "weights: set trainer.strategy to ddp, or give the 16-bit model that it was "
                    "made from",
                    base=self.base,
                )
            )
        return self._adapt(model, sharded)

    def _adapt(self, model: PreTrainedModel, sharded: bool) -> PreTrainedModel:
        # A is drawn from the seed alone, whatever was drawn before.
        torch.manual_seed(self.seed)
        if self.adapter is None:
            inject(model, self.lora)
        else:
            continue_adapter(model, self.adapter, self.lora)
        if self.library == BF16:
            if sharded or not use_bf16_products(model):
                raise needs_dense_base()
            # Steps would not fit well between what is left of the float32 weights.
            release_freed_blocks()
        if self.fast_layers:
            use_fast_layers(model, self._fast_kinds(model, sharded))
        # A base that is used again has said so before.
        for line in self._lines(model) if self.loaded is None else []:
            print_rank0(line)
        return model

    def _lines(self, model: PreTrainedModel) -> Iterator[str]:
        """Yield what a person should know of the adapted model."""
        if self.adapter is not None:
            yield (
                tr(
                    "model  goes on from the adapter {adapter}, on the base in {quantize}",
                    adapter=self.adapter,
                    quantize=self.quantize,
                )
                if self.quantize
                else tr("model  goes on from the adapter {adapter}", adapter=self.adapter)
            )
        for paths in tied_groups(model):
            yield tr("model  {paths} are one matrix and train together", paths=" and ".join(paths))

    def _fast_kinds(self, model: PreTrainedModel, sharded: bool) -> list[str]:
        # Sharding must find plain layers, and recomputing inside a checkpoint gains nothing.
        kinds = ["gated MLP"] if sharded else fast_kinds(self._library(model))
        return [kind for kind in kinds if kind != "gated MLP" or not self.gradient_checkpointing]

    def _library(self, model: PreTrainedModel) -> str:
        choice = choose_library(model)
        if choice is None:
            return self.library
        if self.library:
            choice = Choice(self.library, tr("as the checkpoint's run"))
        if self.loaded is None:
            print_rank0(
                tr(
                    "model  its products are computed by {library} ({reason})",
                    library=choice.value,
                    reason=choice.reason,
                )
            )
        return choice.value


def use_checkpointing(
    model: PreTrainedModel, contexts: Callable[[], tuple[Any, Any]] = noop_context_fn
) -> None:
    """Let a model keep few activations in training and compute the others twice.

    Args:
        model: With or without weights.
        contexts: Returns the contexts of the first computation and of the second.

    Raises:
        ConfigError: The family cannot.
    """
    try:
        model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    except ValueError:
        raise ConfigError(
            tr(
                "{type} cannot compute its activations twice: set model.gradient_checkpointing "
                "to false, and lower data.max_length or data.batch_size if memory is short",
                type=type(model).__name__,
            )
        ) from None
