"""Matching during training: val/matching at each validation."""

from collections.abc import Sequence
from functools import cached_property

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback

from data.encoder import Encoder
from data.types import DataError, Example, Message, RowError
from lit.measures.losses import mean_losses
from lit.measures.matching import SIMILAR, Case, Key, Matching
from lit.measures.sample import fair_order
from lit.messages import tr
from lit.model.loss import token_losses
from lit.packing.hidden_states import shares
from lit.train.datamodule import QADataModule
from lit.train.module import LoRAModule


class ValMatching(Callback):
    """Measures whether held-out answers are tied to their questions, and logs it with the loss.

    Args:
        data: The run's data.
        rows: The most held-out rows to measure: a random sample, the same at each validation.
    """

    def __init__(self, data: QADataModule, rows: int = 32) -> None:
        self.data, self.rows = data, rows

    @cached_property
    def matching(self) -> Matching:
        """The rows to measure; available after the data's ``setup``.

        Raises:
            DataError: No two held-out rows are questions with different answers.
        """
        order = fair_order(len(self.data.val_rows))[: self.rows]
        held = [self.data.val.messages(row) for row in self.data.val_rows[order]]
        cases = [
            Case(turns, answer.content)
            for *turns, answer in held
            if turns and turns[-1].role == "user"
        ]
        matching = Matching(cases, self._encode)
        if not any(matching.others[SIMILAR]):
            raise DataError(
                tr(
                    "`val_matching` needs two held-out rows that are questions with different "
                    "answers: raise `val_fraction`, or leave it off"
                )
            )
        return matching

    def _encode(self, conversations: list[list[Message]]) -> list[Example | RowError]:
        """Return conversations in tokens, cut as the rows are."""
        encoder = Encoder(self.data.tokenizer, *self.data.cut)
        found = encoder.encode_all(conversations)
        return [x if isinstance(x, RowError) else x[-1] for x in found]

    def keys(self) -> list[Key]:
        """Return what is scored at each validation."""
        rows = range(len(self.matching.cases))
        keys = (key for row in rows for key in self.matching.keys(row, (SIMILAR,)))
        return list(dict.fromkeys(keys))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Score the answers under the model as it is, and log the share of rows that are right."""
        assert isinstance(pl_module, LoRAModule)
        examples = self.matching.examples(self.keys())
        with trainer.precision_plugin.val_step_context():
            losses = mean_losses(
                lambda batch: pl_module.call(token_losses, batch),
                [*examples.values()],
                pl_module.device,
                shares(pl_module.adapted_model),
            )
        means = {key: np.array([-loss]) for key, loss in zip(examples, losses, strict=True)}
        rows: Sequence[int] = range(len(self.matching.cases))
        found = [self.matching.right(SIMILAR, row, means) for row in rows]
        share = float(np.mean([x for x in found if x is not None]))
        pl_module.val_metrics["val/matching"] = share
        pl_module.log("val/matching", share, prog_bar=True, logger=False)
