"""What happens beside training: speed, lines for a pipe, the best adapter."""

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from transformers import PreTrainedModel

from data.types import Batch
from lit.model.attention import unpacked
from lit.model.generation import Answer, Sampling, answers
from lit.run.console import print_rank0
from lit.run.folder import RunFolder
from lit.run.lightning_internals import step_ends
from lit.train.module import LoRAModule
from lora.adapter import save_adapter


class Throughput(Callback):
    """Logs ``train/tokens_per_s``: tokens of an optimizer step on all ranks, validation aside.

    Keeps the run's tokens in ``total``, and the seconds that their steps took.
    """

    def __init__(self) -> None:
        self.total, self.seconds = 0, 0.0
        self._begin()

    def on_train_start(self, *_: object) -> None:
        """Start the clock."""
        self._begin()

    def on_validation_end(self, *_: object) -> None:
        """Start it anew."""
        self._begin()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count, and log where an optimizer step ends."""
        self.tokens += batch.input_ids.numel()
        if not step_ends(trainer):
            return
        counted = torch.tensor(self.tokens, device=pl_module.device)
        tokens = int(trainer.strategy.reduce(counted, reduce_op="sum"))
        seconds = time.perf_counter() - self.since
        self.total += tokens
        self.seconds += seconds
        pl_module.log("train/tokens_per_s", tokens / seconds, prog_bar=True)
        self._begin()

    def _begin(self) -> None:
        self.tokens, self.since = 0, time.perf_counter()


class ProgressLines(Callback):
    """Progress in lines, for a pipe or a log file, where a bar cannot be drawn.

    Args:
        lines: About how many lines of training a run prints.
    """

    def __init__(self, lines: int = 20) -> None:
        self.lines = lines

    def on_train_start(self, trainer: L.Trainer, *_: object) -> None:
        """Note where the run begins and ends."""
        self.printed = trainer.global_step
        self.total = trainer.datamodule.total_steps()  # type: ignore[attr-defined]
        self.since = time.perf_counter()
        self.first = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        """Print at ends of optimizer steps, evenly over the run."""
        step = trainer.global_step
        if step == self.printed or (step % max(1, self.total // self.lines) and step != self.total):
            return
        self.printed = step
        left = (time.perf_counter() - self.since) / (step - self.first) * (self.total - step)
        values = trainer.callback_metrics
        print_rank0(
            f"step {step}/{self.total}  loss {values['train/loss']:.3f}  "
            f"{values['train/tokens_per_s']:.0f} tokens/s  {left / 60:.0f} min left"
        )

    def on_validation_end(self, trainer: L.Trainer, *_: object) -> None:
        """Print the validation loss."""
        loss = trainer.callback_metrics["val/loss"]
        print_rank0(f"step {trainer.global_step}  validation loss {loss:.4f}")


class BestAdapter(Callback):
    """Keeps the adapter with the lowest validation loss in the run's folder.

    Without validation rows it keeps the last.

    Args:
        folder: The run's.
    """

    STATE = ("base_loss", "loss", "step", "judged", "tensors")

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.base_loss = math.nan
        self.loss = math.inf
        self.step = 0
        self.judged = 0
        """The optimizer step of the last validation."""
        self.tensors: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save if this is the best so far; a silent adapter is the base."""
        loss = float(trainer.callback_metrics["val/loss"])
        self.judged = trainer.global_step
        if trainer.global_step == 0:
            self.base_loss = loss
        elif loss < self.loss:
            self.loss, self.step = loss, trainer.global_step
            state = pl_module.state_dict().items()
            self.tensors = {name: value.to("cpu", copy=True) for name, value in state}
            self._save(trainer, pl_module)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the best so far into the folder, where one of later steps may lie, or none."""
        if not self.tensors:
            return
        assert isinstance(pl_module, LoRAModule)
        now = {name: value.clone() for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict(self.tensors)
        self._save(trainer, pl_module)
        pl_module.load_state_dict(now)

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the last where nothing was judged."""
        if not trainer.datamodule.val_rows.size:  # type: ignore[attr-defined]
            self.step = self.judged = trainer.global_step
            self._save(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know: the best adapter itself, as its folder may be elsewhere."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        for name in self.STATE:
            setattr(self, name, state_dict[name])

    @rank_zero_only
    def _save(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, LoRAModule)
        folder = self.folder.adapter
        folder.mkdir(parents=True, exist_ok=True)
        # The tokenizer carries the template: the folder says how to talk to the adapter.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".adapter-") as new:
            trainer.datamodule.tokenizer.save_pretrained(new)  # type: ignore[attr-defined]
            for path in Path(new).iterdir():
                path.replace(folder / path.name)
        save_adapter(pl_module.adapted_model, folder, pl_module.base, pl_module.revision)


class SampleAnswers(Callback):
    """Writes answers to a few held-out questions to TensorBoard at each validation.

    Args:
        rows: How many.
        tokens: Tokens of an answer, at most.
    """

    def __init__(self, rows: int = 3, tokens: int = 64) -> None:
        self.rows = rows
        self.sampling = Sampling(max_new_tokens=tokens)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer, likeliest token first, and write."""
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        assert isinstance(pl_module, LoRAModule)
        # Ranks that share a base answer together; the boards of all but the first write nothing.
        sharded = pl_module.root is not None
        if not (boards and (trainer.is_global_zero or sharded)):
            return
        tokenizer, prompts = trainer.datamodule.prompts(self.rows)  # type: ignore[attr-defined]

        def answer_all(model: PreTrainedModel) -> list[tuple[int, Answer]]:
            return list(answers(model, tokenizer, prompts, self.sampling, self.rows, sharded))

        with unpacked(pl_module.adapted_model):
            made = pl_module.call(answer_all)
        for place, answer in made:
            question = tokenizer.decode(prompts[place], skip_special_tokens=True)
            text = f"{question}\n\n{answer.text}"
            for board in boards:
                board.experiment.add_text(f"answer {place + 1}", text, trainer.global_step)
