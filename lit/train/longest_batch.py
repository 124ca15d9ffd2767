"""The longest micro-batch of a run, tried early, so that memory suffices to the end."""

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from data.batch import collate
from data.types import Batch
from lit.run.console import print_rank0
from lit.run.lightning_internals import step_ends
from lit.run.memory import tight, trim_heap
from lit.train.datamodule import QADataModule
from lit.train.module import LoRAModule
from lit.train.step_guard import TrainingError
from lora.inject import trainable_parameters


class LongestBatchTrial(Callback):
    """Goes forward and back through the longest micro-batch, where memory may not suffice for it.

    After the first optimizer step, which shows what a micro-batch takes. No number of the run
    depends on it: the gradients are dropped, the random generators put back.
    """

    def __init__(self) -> None:
        self.most = 0
        """Tokens of the longest micro-batch so far."""
        self.over = False

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Rehearse at the end of the first optimizer step, if need be.

        Raises:
            TrainingError: The memory does not suffice.
        """
        if self.over:
            return
        self.most = max(self.most, batch.input_ids.numel())
        # Half a step's gradients are not to be dropped.
        if not step_ends(trainer):
            return
        self.over = True
        assert isinstance(pl_module, LoRAModule)
        ahead = longest(trainer.datamodule)  # type: ignore[attr-defined]
        growth = max(1.0, ahead.input_ids.numel() / self.most)
        scarce = tight(pl_module.device, trainer.num_devices, growth)
        # Ranks that share a base compute together.
        if not trainer.strategy.reduce_boolean_decision(scarce, all=False):
            return
        rehearse(trainer, pl_module, ahead)
        if pl_module.device.type == "cpu" and tight(pl_module.device, trainer.num_devices):
            print_rank0(
                "memory little is left: what is freed goes back at once, and steps take longer"
            )
            trim_heap()


def rehearse(trainer: L.Trainer, module: LoRAModule, batch: Batch) -> None:
    """Go forward and back through a micro-batch, and forget what came of it.

    Raises:
        TrainingError: The memory does not suffice.
    """
    try:
        with torch.random.fork_rng(), trainer.precision_plugin.train_step_context():
            module.training_step(batch.to(module.device), 0).backward()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory in the longest micro-batch, {len(batch.cu_seqlens) - 1} rows of "
            f"{batch.input_ids.numel()} tokens. {LOWER}"
        ) from None
    finally:
        module.take_step_loss()
        for parameter in trainable_parameters(module.adapted_model).values():
            parameter.grad = None


LOWER = (
    "Lower data.batch_size, data.max_tokens or data.max_length, set model.gradient_checkpointing "
    "to true, or hold the base in 4 bits by model.quantize nf4"
)
"""What to do where memory does not suffice, cheapest first."""


def longest(data: QADataModule) -> Batch:
    """The micro-batch with the most tokens that a rank meets in a run.

    Args:
        data: With its trainer, after ``setup``.
    """
    trainer = data.trainer
    assert trainer is not None
    lengths = data.store.lengths[data.train_rows]
    most, rows = 0, data.train_rows[:1]
    for epoch in range(max(1, trainer.max_epochs or 1)):
        planned = data.epoch(epoch)
        ends = np.append(0, np.cumsum(lengths[planned.order]))
        tokens = np.diff(ends[planned.starts])[trainer.global_rank :: trainer.world_size]
        micro_step = int(tokens.argmax())
        if tokens[micro_step] > most:
            most, rows = (
                tokens[micro_step],
                data.train_rows[planned.rows(trainer.global_rank, micro_step)],
            )
    return collate([data.store.example(row) for row in rows], step_labels=1)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was asked for in vain, on a CPU or on a GPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # oneDNN says it in its own way.
    said = ("can't allocate memory", "could not create a primitive", "could not create a memory")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)
