"""A frozen base that is spread over the ranks: FSDP2 by Lightning's ModelParallelStrategy."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy, ParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from lit.run.lightning_internals import join_one_mesh, use_command_launcher
from lora.config import ConfigError
from lora.inject import trainable_parameters

FSDP2 = "fsdp2"
"""What trainer.strategy is where the base is to be sharded."""
OTHERS = ("fsdp", "deepspeed", "modelparallel")
"""How the names of strategies begin that shard in ways not made for a frozen base."""
T = TypeVar("T")


class ShardedStrategy(ModelParallelStrategy):
    """Every rank trains on rows of its own and holds its share of the base; the adapter is whole.

    An adapter is some thousandth of its base, so each rank keeps all of it, as under DDP:
    checkpoints, optimizers of 8 bits and the written adapter are those of a single process, and its
    gradients are summed once a step, however many micro-batches that has.
    """

    strategy_name = FSDP2

    # Lightning gathers sharded tensors here; the tensors of a checkpoint are whole already.
    lightning_module_state_dict = ParallelStrategy.lightning_module_state_dict
    load_model_state_dict = ParallelStrategy.load_model_state_dict
    optimizer_state = ParallelStrategy.optimizer_state
    load_optimizer_state_dict = ParallelStrategy.load_optimizer_state_dict
    save_checkpoint = ParallelStrategy.save_checkpoint
    load_checkpoint = ParallelStrategy.load_checkpoint
    lightning_restore_optimizer = ParallelStrategy.lightning_restore_optimizer
    restore_checkpoint_after_setup = ParallelStrategy.restore_checkpoint_after_setup

    def _configure_launcher(self) -> None:
        # As under DDP, also where the processes are there: it sees that they are as many as asked.
        use_command_launcher(self)

    def setup_environment(self) -> None:
        """Join the other processes, all of which share one base; a second call changes nothing."""
        join_one_mesh(self)

    def optimizer_step(
        self, optimizer: torch.optim.Optimizer, closure: Callable[[], Any], *args: Any, **kw: Any
    ) -> Any:
        """Update with the mean of all ranks' gradients, which whatever looks at them sees too."""

        def averaged() -> Any:
            loss = closure()
            average_gradients([p for group in optimizer.param_groups for p in group["params"]])
            return loss

        return super().optimizer_step(optimizer, averaged, *args, **kw)


StrategyRegistry.register(FSDP2, ShardedStrategy, description="A frozen base, sharded by FSDP2.")


class Gathered(nn.Module):
    """The root of a sharded model: what is called through it may read all but the blocks' weights.

    The blocks gather their own when they are called. The model's forward is no root: the loss
    reads the head's weight without it.

    Args:
        model: Its blocks are sharded.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, call: Callable[[], T]) -> T:
        """Call."""
        return call()


def check_strategy(asked: Any, quantize: str | None) -> None:
    """See that a strategy can train an adapter, before anything is loaded.

    Args:
        asked: ``trainer.strategy`` as it was parsed: a name, or a class path with its arguments.
        quantize: ``model.quantize``.

    Raises:
        ConfigError: It shards in a way that is not known here, or what cannot be sharded.
    """
    name = str(getattr(asked, "class_path", asked)).rpartition(".")[2]
    if name not in (FSDP2, ShardedStrategy.__name__):
        if name.lower().startswith(OTHERS):
            raise ConfigError(
                f"trainer.strategy is {name}; a base is sharded here by trainer.strategy {FSDP2}"
            )
    elif quantize:
        raise ConfigError(
            f"model.quantize is {quantize}, and trainer.strategy {FSDP2} shards dense weights "
            "only: leave model.quantize out, or keep the small base whole on each device by "
            "trainer.strategy ddp"
        )


def shard(model: PreTrainedModel, mesh: DeviceMesh, device: torch.device) -> Gathered:
    """Leave on each rank its share of every frozen tensor, in place.

    A block of layers is gathered when it is called, and freed after it; so are the input
    embeddings. What the loss reads, the head and embeddings tied to it, is one group with what is
    left, gathered for a whole forward and backward pass.

    Args:
        model: With adapters, which stay whole; on the CPU.
        mesh: Of the ranks that share the base.
        device: This rank's; a block is moved there just before it is sharded.

    Returns:
        What the model is to be called through.
    """
    root = Gathered(model)
    whole = set(trainable_parameters(model).values())
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    parts = list(_blocks(model.base_model))
    if not {*embedding.parameters()} & {*head.parameters()}:
        parts.append(embedding)
    for module in [*parts, root]:
        fully_shard(module, mesh=mesh, ignored_params=whole)
    model.to(device)  # type: ignore[arg-type]
    return root


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Give every rank the mean of all ranks' gradients, in one message.

    Args:
        parameters: The same on every rank, of one dtype. One without a gradient counts as zero.
    """
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts: tuple[Tensor, ...] = flat.split([p.numel() for p in parameters])
    for parameter, mean in zip(parameters, parts, strict=True):
        parameter.grad = mean.view_as(parameter)


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost layers that a model keeps in lists, which is what it is deep in."""
    for child in module.children():
        yield from child if isinstance(child, nn.ModuleList) else _blocks(child)
