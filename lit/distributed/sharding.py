"""A frozen base model sharded over the ranks, with FSDP2 and Lightning's ModelParallelStrategy."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from lit.messages import tr
from lit.run.lightning_internals import join_one_mesh, use_command_launcher
from lora.config import ConfigError
from lora.families.decoder import text_decoder
from lora.injection import trainable_parameters

FSDP2 = "fsdp2"
"""The value of trainer.strategy that shards the base."""
UNSUPPORTED = ("fsdp", "deepspeed", "modelparallel")
"""Prefixes of other strategies that shard, but not a frozen base with an unsharded adapter."""
T = TypeVar("T")


class ShardedStrategy(ModelParallelStrategy):
    """Data parallel training in which each rank holds a shard of the base and the whole adapter.

    An adapter has about a thousandth of its base's parameters, so every rank keeps all of it, as
    with DDP. Checkpoints, 8-bit optimizers and the saved adapter are the same as with one process.
    Gradients are all-reduced once per optimizer step, not once per micro-batch.
    """

    strategy_name = FSDP2

    # ModelParallelStrategy gathers sharded tensors here; a checkpoint of ours has none.
    lightning_module_state_dict = ParallelStrategy.lightning_module_state_dict
    load_model_state_dict = ParallelStrategy.load_model_state_dict
    optimizer_state = ParallelStrategy.optimizer_state
    load_optimizer_state_dict = ParallelStrategy.load_optimizer_state_dict
    save_checkpoint = ParallelStrategy.save_checkpoint
    load_checkpoint = ParallelStrategy.load_checkpoint
    lightning_restore_optimizer = ParallelStrategy.lightning_restore_optimizer
    restore_checkpoint_after_setup = ParallelStrategy.restore_checkpoint_after_setup

    def _configure_launcher(self) -> None:
        # As DDP does, so that the number of processes is checked under torchrun and SLURM too.
        use_command_launcher(self)

    def setup_environment(self) -> None:
        """Connect the ranks, which all share one base. A second call changes nothing."""
        join_one_mesh(self)

    def optimizer_step(
        self, optimizer: torch.optim.Optimizer, closure: Callable[[], Any], *args: Any, **kw: Any
    ) -> Any:
        """Update with the mean of all ranks' gradients; the hooks before the update see it too."""

        def average_after_backward() -> Any:
            loss = closure()
            average_gradients([p for group in optimizer.param_groups for p in group["params"]])
            return loss

        return super().optimizer_step(optimizer, average_after_backward, *args, **kw)


StrategyRegistry.register(FSDP2, ShardedStrategy, description="A frozen base, sharded by FSDP2.")


class ShardedRoot(nn.Module):
    """The FSDP root of a sharded model: gathers what is in no block for a function call.

    A block gathers its own weights when it is called. The model itself cannot be the root, because
    the loss reads the head's weight outside of the model's forward.

    Args:
        model: A model whose blocks are sharded.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns."""
        return call()


def shards(strategy: Any) -> bool:
    """Return whether a strategy shards the base.

    Args:
        strategy: ``trainer.strategy`` as parsed: a name, or a class path with arguments.
    """
    return _name(strategy) in (FSDP2, ShardedStrategy.__name__)


def _name(strategy: Any) -> str:
    return str(getattr(strategy, "class_path", strategy)).rpartition(".")[2]


def check_strategy(strategy: Any, quantize: str | None) -> None:
    """Check that a strategy can train an adapter, before anything is loaded.

    Args:
        strategy: As for ``shards``.
        quantize: ``model.quantize``.

    Raises:
        ConfigError: The strategy is not supported, or the base cannot be sharded.
    """
    name = _name(strategy)
    if not shards(strategy):
        if name.lower().startswith(UNSUPPORTED):
            raise ConfigError(
                tr(
                    "trainer.strategy is {name}: to shard the base, set trainer.strategy to "
                    "{fsdp2}",
                    name=name,
                    fsdp2=FSDP2,
                )
            )
        if any(start in name.lower() for start in ("spawn", "fork", "notebook")):
            raise ConfigError(
                tr(
                    "trainer.strategy is {name}, and the adapter would stay in the processes "
                    "that it starts: set trainer.strategy to ddp",
                    name=name,
                )
            )
    elif quantize:
        raise ConfigError(
            tr(
                "model.quantize is {quantize}, and trainer.strategy {fsdp2} shards only dense "
                "weights: set model.quantize to null, or keep the whole quantized base on each "
                "device with trainer.strategy ddp",
                quantize=quantize,
                fsdp2=FSDP2,
            )
        )


def shard(model: PreTrainedModel, mesh: DeviceMesh, device: torch.device) -> ShardedRoot:
    """Shard every frozen parameter over the ranks, in place.

    The input embeddings and each block of layers are gathered when they are called, and freed
    afterwards. The head, embeddings tied to it, and the rest form one group, which is gathered for
    a whole forward and backward pass, because the loss reads the head's weight.

    Args:
        model: A model with adapters, which are not sharded; on the CPU.
        mesh: The ranks that share the base.
        device: The device of this rank. Blocks move there one by one, just before sharding.

    Returns:
        The module through which to call the model.
    """
    root = ShardedRoot(model)
    unsharded = set(trainable_parameters(model).values())
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    groups = list(_blocks(text_decoder(model)))
    if not {*embedding.parameters()} & {*head.parameters()}:
        groups.append(embedding)
    for module in [*groups, root]:
        fully_shard(module, mesh=mesh, ignored_params=unsharded)
    model.to(device)  # type: ignore[arg-type]
    return root


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all ranks, with one all-reduce.

    Args:
        parameters: The same on every rank, of one dtype. A missing gradient counts as zero.
    """
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    means: tuple[Tensor, ...] = flat.split([p.numel() for p in parameters])
    for parameter, mean in zip(parameters, means, strict=True):
        parameter.grad = mean.view_as(parameter)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules in the model's ModuleLists: most of its weights."""
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else _blocks(child)
