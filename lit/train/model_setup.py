"""A model for a trainer: in its precision, on its device or sharded over its ranks, and checked."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import lightning as L
import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack, _pop_mode_temporarily
from transformers import PreTrainedModel

from lit.device.precision import base_dtype
from lit.distributed.sharding import FSDP2, ShardedRoot, ShardedStrategy, shard
from lit.fast_layers.library import library_for
from lit.messages import tr
from lit.model.preparation import ModelSpec, use_checkpointing
from lit.model.start_checks import check_model
from lit.packing.pack import share
from lit.run.console import print_rank0
from lit.train.datamodule import QADataModule
from lora.config import ConfigError
from lora.injection import trainable_parameters

T = TypeVar("T")


class ResidentModule(L.LightningModule):
    """A module whose model stays on its device, in the dtypes that it was made in."""

    def to(self, *args: Any, **kwargs: Any) -> "ResidentModule":
        """Move to a device and keep each dtype: bf16-true would round A and B at every step."""
        kwargs.pop("dtype", None)
        return super().to(*args, **kwargs)

    def cpu(self) -> "ResidentModule":
        """Do nothing.

        At the end of each validation and of the training, Lightning moves the module off its GPU:
        the memory of a machine may be too small for the base, and int8 layers would come back
        twice as large.
        """
        return self


def set_up_model(spec: ModelSpec, trainer: L.Trainer) -> tuple[PreTrainedModel, ShardedRoot | None]:
    """Make an adapted model for a trainer, and check packed attention and the loss.

    Returns:
        The model, and the root through which a sharded model must be called.

    Raises:
        ConfigError: A setting cannot be fulfilled, or the model family cannot be trained.
    """
    precision, strategy = str(trainer.precision), trainer.strategy
    dtype = base_dtype(precision)
    spec = replace(spec, library=library_for(precision) or spec.library)
    root = None
    if isinstance(strategy, ShardedStrategy):
        # The whole base may be too large for one device, so it is loaded on the CPU.
        model = spec.make(dtype, torch.device("cpu"), sharded=True)
        root = shard(model, strategy.device_mesh, strategy.root_device)
    else:
        model = spec.make(dtype, strategy.root_device, sharded=False)
    with outside_modes(), trainer.precision_plugin.forward_context():
        alone = check_model(
            partial(call_model, model, root),
            model.config,
            strategy.root_device,
            must_pack=FSDP2 if root else None,
            longest_row=_longest_row(trainer),
        )
        _share(partial(call_model, model, root), trainer, alone)
    if spec.gradient_checkpointing:
        use_checkpointing(model)
    return model, root


@contextmanager
def outside_modes() -> Iterator[None]:
    """Leave the modes that a trainer puts around ``configure_model``, in a ``with`` block.

    They are for making tensors, and no training step runs in them: a tensor that a family makes on
    the wrong device would go unseen in a check. And each of a forward's thousands of calls would
    pass through Python functions, which took a third of the checks' time.
    """
    with ExitStack() as stack:
        for _ in _get_current_function_mode_stack():
            stack.enter_context(_pop_mode_temporarily())
        yield


def call_model(
    model: PreTrainedModel, root: ShardedRoot | None, function: Callable[..., T], *args: Any
) -> T:
    """Call a function of a model; where the base is sharded, every rank must take part."""
    call = partial(function, model, *args)
    return root(call) if root else call()


def _share(call: Callable[..., Any], trainer: L.Trainer, alone: Tensor) -> None:
    """Let a model compute shared beginnings once, or the data's rows share none.

    Raises:
        ConfigError: The model cannot, and the micro-batches were planned with shared beginnings.
    """
    data, module = getattr(trainer, "datamodule", None), trainer.lightning_module
    if not isinstance(data, QADataModule):
        call(share, alone)  # batches may come from anywhere
        return
    plans = data.plans, data.val_plans
    if all(planned.beginnings is None for planned in plans) or not (reason := call(share, alone)):
        return
    for planned in plans:
        planned.share_nothing()
    print_rank0(tr("model  {reason}: rows share no beginnings", reason=reason))
    if getattr(module, "total_steps", None) not in (None, data.total_steps()):
        raise ConfigError(tr("{reason}: set data.share_prefixes to false", reason=reason))


def _longest_row(trainer: L.Trainer) -> int | None:
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, QADataModule):
        return None
    return max(int(store.lengths.max(initial=0)) for store in (data.store, data.val))


def names_that_ddp_ignores(module: L.LightningModule) -> list[str]:
    """Return the tensors that DDP must not send: every rank has read the same base."""
    trained = trainable_parameters(module)
    named = chain(module.named_parameters(), module.named_buffers())
    return [name for name, _ in named if name not in trained]
