"""The longest micro-batch of a run, tried early, so that memory lasts until the end."""

from collections.abc import Callable

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from data.types import Batch
from lit.device.memory import memory_is_tight, trim_heap
from lit.messages import tr, tr_mark
from lit.run.console import print_rank0
from lit.run.lightning_internals import step_ends
from lit.train.module import LoRAModule
from lit.train.step_guard import TrainingError
from lora.injection import trainable_parameters

LOWER_MEMORY = tr_mark(
    "Lower data.batch_size, data.max_tokens or data.max_length, set "
    "model.gradient_checkpointing to true, or load the base in 4 bits with model.quantize "
    "nf4"
)
"""What to do when memory does not suffice, cheapest first."""

NO_MEMORY = (
    # torch's CPU allocator, oneDNN
    *("can't allocate memory", "could not create a primitive", "could not create a memory"),
    # cuBLAS and cuDNN, whose handles take memory too; bitsandbytes
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA out of memory"),
    *("CUDA error: out of memory", "MPS backend out of memory", "Invalid buffer size"),
)
"""Texts of a RuntimeError that means out of memory."""


class LongestBatchTrial(Callback):
    """Goes forward and back through the longest micro-batch, where memory may not suffice for it.

    It runs after the first optimizer step, which shows what a micro-batch takes. It changes no
    number of the run: its gradients are dropped, and the random state is restored.

    Args:
        longest: Returns the micro-batch with the most tokens that this rank meets.
    """

    def __init__(self, longest: Callable[[], Batch]) -> None:
        self.longest = longest
        self.most_tokens = 0
        """Tokens of the longest micro-batch so far."""
        self.done = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Try the longest micro-batch at the end of the first optimizer step, if memory is scarce.

        Raises:
            TrainingError: Memory does not suffice.
        """
        if self.done:
            return
        self.most_tokens = max(self.most_tokens, batch.input_ids.numel())
        # Before the step ends, there are gradients that must not be dropped.
        if not step_ends(trainer):
            return
        self.done = True
        assert isinstance(pl_module, LoRAModule)
        longest = self.longest()
        growth = max(1.0, longest.input_ids.numel() / self.most_tokens)
        scarce = memory_is_tight(pl_module.device, trainer.num_devices, growth)
        # Ranks that share a sharded base compute together.
        if not trainer.strategy.reduce_boolean_decision(scarce, all=False):
            return
        try_batch(trainer, pl_module, longest)
        on_cpu = pl_module.device.type == "cpu"
        if on_cpu and memory_is_tight(pl_module.device, trainer.num_devices):
            print_rank0(
                tr("memory little is left: freed memory is returned at once, and steps slow")
            )
            trim_heap()


def try_batch(trainer: L.Trainer, module: LoRAModule, batch: Batch) -> None:
    """Go forward and back through a micro-batch, and drop the result.

    Raises:
        TrainingError: Memory does not suffice.
    """
    try:
        # Without the device, torch would open every card of the machine.
        own = [module.device] if module.device.type == "cuda" else []
        with torch.random.fork_rng(own), trainer.precision_plugin.train_step_context():
            module.training_step(batch.to(module.device), 0).backward()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            tr(
                "out of memory in the longest micro-batch, {rows} rows of {tokens} tokens. "
                "{advice}",
                rows=len(batch.row_lengths),
                tokens=batch.input_ids.numel(),
                advice=tr(LOWER_MEMORY),
            )
        ) from None
    finally:
        module.step_loss.take()
        for parameter in trainable_parameters(module.adapted_model).values():
            parameter.grad = None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on a CPU or a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in NO_MEMORY)
