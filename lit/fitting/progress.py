"""Progress of a run: tokens per second, and lines for a pipe or a log file."""

import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from data.types import Batch
from lit.messages import tr
from lit.run.console import print_rank0
from lit.run.lightning_internals import step_ends


def time_left(first: int, total: int) -> Callable[[int], str]:
    """Start a clock; the result says how long a run takes from a step to its end.

    Args:
        first: Optimizer steps that are done.
        total: Optimizer steps of the run.
    """
    since = time.perf_counter()

    def left(step: int) -> str:
        seconds = (time.perf_counter() - since) / (step - first) * (total - step)
        return (
            tr("{minutes:.0f} min left", minutes=seconds / 60)
            if seconds >= 90
            else tr("{seconds:.0f} s left", seconds=seconds)
        )

    return left


def values_of_step(trainer: L.Trainer) -> str:
    """Return the loss and the speed of the last optimizer step."""
    values = trainer.callback_metrics
    return tr(
        "loss {loss:.3f}  {speed:.0f} tokens/s",
        loss=values["train/loss"],
        speed=values["train/tokens_per_s"],
    )


class Throughput(Callback):
    """Logs ``train/tokens_per_s``: tokens of an optimizer step on all ranks, without validation.

    A beginning that rows share counts for each of them, so that speeds can be compared.

    The sums of a run are in ``tokens`` and ``seconds``.
    """

    def __init__(self) -> None:
        self.tokens, self.seconds = 0, 0.0
        self._restart()

    def on_train_start(self, *_: object) -> None:
        """Start the clock."""
        self._restart()

    def on_validation_end(self, *_: object) -> None:
        """Start the clock again."""
        self._restart()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count the tokens, and log them where an optimizer step ends."""
        self._step_tokens += sum(batch.row_lengths)
        if not step_ends(trainer):
            return
        tokens = self._step_tokens
        if trainer.world_size > 1:
            counted = torch.tensor(tokens, device=pl_module.device)
            tokens = int(trainer.strategy.reduce(counted, reduce_op="sum"))
        seconds = time.perf_counter() - self._since
        self.tokens += tokens
        self.seconds += seconds
        # A tensor on the CPU: Lightning would copy a number to the device.
        pl_module.log("train/tokens_per_s", torch.tensor(tokens / seconds))
        self._restart()

    def _restart(self) -> None:
        self._step_tokens, self._since = 0, time.perf_counter()


class ProgressLines(Callback):
    """Prints progress in lines, for a pipe or a log file, where a bar cannot be drawn.

    Args:
        total_steps: Returns the optimizer steps of the run; called when training starts.
        lines: About how many lines of training a run prints.
    """

    def __init__(self, total_steps: Callable[[], int], lines: int = 20) -> None:
        self.total_steps, self.lines = total_steps, lines

    def on_train_start(self, trainer: L.Trainer, *_: object) -> None:
        """Note where the run starts and ends."""
        self._total = self.total_steps()
        self._first = self._printed = trainer.global_step
        self._left = time_left(self._first, self._total)

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Print at the ends of optimizer steps, evenly over the run."""
        step, every = trainer.global_step, max(1, self._total // self.lines)
        if step == self._printed or (step % every and step != self._total):
            return
        self._printed = step
        print_rank0(
            tr(
                "step {step}/{total}  {values}  {left}",
                step=step,
                total=self._total,
                values=values_of_step(trainer),
                left=self._left(step),
            )
        )

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Print the validation loss."""
        loss = trainer.callback_metrics["val/loss"]
        print_rank0(
            tr(
                "step {step}  validation loss {loss:.4f}",
                step=trainer.global_step,
                loss=loss,
            )
        )
