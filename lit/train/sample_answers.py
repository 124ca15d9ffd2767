"""Sampled answers in TensorBoard."""

from dataclasses import replace

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from transformers import PreTrainedModel

from data.types import IGNORE
from lit.answering.context import context_length
from lit.answering.generation import Answer, GenerationError, answers
from lit.answering.sampling import NotFiniteError, Sampling
from lit.messages import tr
from lit.packing.pack import unpacked
from lit.run.console import print_rank0
from lit.train.datamodule import QADataModule
from lit.train.module import LoRAModule


class SampleAnswers(Callback):
    """Writes answers to a few held-out questions to TensorBoard at each validation.

    Args:
        data: The run's data.
        rows: How many questions.
        max_new_tokens: Tokens that an answer may have.
    """

    def __init__(self, data: QADataModule, rows: int = 3, max_new_tokens: int = 64) -> None:
        self.data, self.rows = data, rows
        self.sampling = Sampling(max_new_tokens=max_new_tokens)

    def _prompts(self) -> list[list[int]]:
        """Return the tokens before the first answer of a few held-out rows, evenly spread."""
        rows = self.data.val_rows
        rows = rows[:: max(1, len(rows) // self.rows)][: self.rows]
        examples = [self.data.val.example(row) for row in rows]
        lengths = [[label == IGNORE for label in x.labels].index(False) for x in examples]
        return [x.ids[:length] for x, length in zip(examples, lengths, strict=True)]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Answer with the most likely tokens, and write the texts."""
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        assert isinstance(pl_module, LoRAModule)
        # Ranks that share a sharded base generate together; the boards of the others write nothing.
        sharded = pl_module.root is not None
        if not boards or not (trainer.is_global_zero or sharded):
            return
        tokenizer, prompts = self.data.tokenizer, self._prompts()
        limit, sampling = context_length(pl_module.adapted_model), self.sampling
        if limit is not None:
            # A row may fill the context; then there is no room for an answer.
            prompts = [prompt for prompt in prompts if len(prompt) < limit]
            room = limit - max(map(len, prompts), default=0)
            sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))

        print_rank0(tr("       sampling {count} answers for TensorBoard …", count=len(prompts)))

        def answer_all(model: PreTrainedModel) -> list[tuple[int, Answer]]:
            try:
                return list(answers(model, tokenizer, prompts, sampling, self.rows, sharded))
            except NotFiniteError:
                # The validation loss is NaN too, and the step guard decides what follows.
                return []
            except GenerationError as error:
                print_rank0(f"       {error}")
                return []

        with unpacked(pl_module.adapted_model):
            generated = pl_module.call(answer_all)
        for index, answer in generated:
            question = tokenizer.decode(prompts[index], skip_special_tokens=True)
            for board in boards:
                board.experiment.add_text(
                    f"answer {index + 1}", f"{question}\n\n{answer.text}", trainer.global_step
                )
