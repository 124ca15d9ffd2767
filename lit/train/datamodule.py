"""The LightningDataModule: a file of questions and answers becomes planned, flat batches."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from data.formats.judged import Judged
from data.planning.batch import collate
from data.planning.epoch_plans import EpochPlans
from data.planning.loader import MicroBatches, micro_batch_loader, neighbors_of
from data.template import choose_template
from data.types import Batch, Message
from lit.model.base import load_tokenizer
from lit.train.trainer_check import check_trainer, micro_batch_limit

if TYPE_CHECKING:  # half a second to import, which --help and a wrong setting need not wait for
    from data.store import Store


class QADataModule(L.LightningDataModule):
    """Reads, splits, tokenizes and plans the rows of a run.

    Args:
        path: A .jsonl, .json, .csv, .tsv, .xlsx or .parquet file, a folder of such files,
            ``hub:OWNER/NAME``, or a list of these.
        val_path: The same, to validate on; without it, a share of ``path`` is held out.
        val_fraction: The share of ``path`` that is held out without ``val_path``.
        report_fraction: The share of the held-out rows that is kept apart for a report.
        val_every_n_steps: Optimizer steps between validations; by default one each epoch.
        columns: The file's name for each of our fields, such as ``{prompt: question_text}``.
        encoding: Encoding of text files; by default UTF-8, or what their byte order mark says.
            ``auto`` takes another one if it is certain.
        separator: Separator of .csv files; by default read from the header.
        template: ``auto`` (the model's chat template, else plain), ``chat``, ``plain``, or a
            Jinja file.
        template_kwargs: Values for variables of the template, such as ``{enable_thinking: false}``;
            saved in the adapter's template.
        max_length: Tokens that a row may have.
        batch_size: Rows of a micro-batch.
        max_tokens: Tokens of a micro-batch.
        truncation: For longer rows: ``middle`` (cut the prompt's middle), ``drop``, ``error``.
        on_bad_row: ``error``, or ``skip`` and count.
        train_on: Answers of a conversation to learn: ``all``, or the ``last``.
        on_duplicate: For a validation row that is also a training row: ``leave_out`` or ``keep``.
        near_duplicates: The share of text above which rows stay together in the split, or none.
        group_by_length: Make micro-batches of rows of similar length.
        share_prefixes: Compute a beginning that rows of a micro-batch share once.
        group_by_prefix: Make micro-batches of rows that share a long beginning.
        val_matching: Log at each validation how many answers are tied to their questions.
        num_workers: Processes that prepare batches.
        base: Taken from ``model.base``.
        revision: Taken from ``model.revision``.
        seed: Taken from ``seed_everything``.
    """

    tokenizer: PreTrainedTokenizerBase

    def __init__(
        self,
        path: str | list[str],
        val_path: str | list[str] | None = None,
        val_fraction: float = 0.1,
        report_fraction: float = 0.0,
        val_every_n_steps: int | None = None,
        columns: dict[str, str] | None = None,
        encoding: str | None = None,
        separator: str | None = None,
        template: str = "auto",
        template_kwargs: dict[str, Any] | None = None,
        max_length: int = 512,
        batch_size: int = 4,
        max_tokens: int | None = None,
        truncation: str = "middle",
        on_bad_row: str = "error",
        train_on: str = "all",
        on_duplicate: str = "leave_out",
        near_duplicates: float | None = None,
        group_by_length: bool = False,
        share_prefixes: bool = True,
        group_by_prefix: bool = False,
        val_matching: bool = False,
        num_workers: int = 0,
        base: str = "",
        revision: str | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        from data.readers.source import Source
        from data.splitting.split import split_train_val
        from data.stores import build_stores

        self.source = Source(path, encoding, separator, columns or {})
        self.val_source = replace(self.source, path=val_path) if val_path else None
        self.template, self.template_kwargs = template, template_kwargs
        self.base, self.revision = base, revision
        self.limits: dict[str, Any] = {"batch_size": batch_size, "max_tokens": max_tokens}
        self.grouped = {"group_by_length": group_by_length, "group_by_prefix": group_by_prefix}
        self.share_prefixes, self.val_every_n_steps = share_prefixes, val_every_n_steps
        self.num_workers, self.seed, self.val_matching = num_workers, seed, val_matching
        self.cut = max_length, truncation
        rules = {"truncation": truncation, "on_bad_row": on_bad_row, "train_on": train_on}
        self._build, self._rules = build_stores, {"max_length": max_length, **rules}
        self._split = partial(
            split_train_val,
            val_fraction=val_fraction,
            report_fraction=report_fraction,
            seed=seed,
            near_duplicates=near_duplicates,
            on_duplicate=on_duplicate,
        )
        self._train: Store | None = None

    def setup(self, stage: str = "fit") -> None:
        """Tokenize the rows, or find them tokenized in the cache, and split them.

        Raises:
            ConfigError, DataError: A setting, a row or the trainer cannot be used.
        """
        if self.trainer is not None:
            check_trainer(self.trainer, self.val_every_n_steps)
        if self._train is not None:
            return
        self.tokenizer = load_tokenizer(self.base, self.revision)
        self.template = choose_template(self.tokenizer, self.template, self.template_kwargs)
        # A folder may have files whose names say that they validate.
        named = (self.val_source or self.source).validation()
        self.val_source = named or self.val_source
        train, val = self._build(self.source, self.val_source, self.tokenizer, **self._rules)
        split = self._split(train, val)
        split.check_labels(str(self.source))
        self.val, self.overlap, self.share_note = split.val, split.overlap, split.share_note
        self.train_rows, self.val_rows = split.train_rows, split.val_rows
        self.report_rows = split.report_rows
        self._train = train

    @property
    def store(self) -> "Store":
        """The rows of ``path``; available after ``setup``."""
        if self._train is None:
            raise RuntimeError("setup has not been called")
        return self._train

    @cached_property
    def plans(self) -> EpochPlans:
        """The plan of each epoch; available after ``setup`` and with a trainer."""
        return EpochPlans.of(
            self.store,
            self.train_rows,
            self.share_prefixes,
            **self.limits,
            **self.grouped,
            seed=self.seed,
            accumulate=self._trainer.accumulate_grad_batches,
            world_size=self._trainer.world_size,
            limit=micro_batch_limit(self._trainer),
        )

    @cached_property
    def val_plans(self) -> EpochPlans:
        """The plan of a validation, as that of epoch 0; available as ``plans`` is."""
        share = self.share_prefixes
        order = {"group_by_prefix": share, "world_size": self._trainer.world_size}
        return EpochPlans.of(self.val, self.val_rows, share, **self.limits, **order)

    def total_steps(self) -> int:
        """Return the number of optimizer steps of the whole run."""
        epochs, most = self._trainer.max_epochs, self._trainer.max_steps
        if epochs is None or epochs < 0:
            return most
        steps = self.plans.step_map.total_steps(epochs)
        return steps if most < 0 else min(steps, most)

    def train_dataloader(self) -> DataLoader:
        """Return the rest of the current epoch: all of it, unless the run was resumed inside it."""
        epoch = self._trainer.current_epoch
        # The plan is a pure function, so the number of finished steps is the whole position.
        start = self.plans.micro_step(epoch, self._trainer.global_step)
        return self._loader(self.store, self.train_rows, self.plans, epoch, start)

    def val_dataloader(self) -> DataLoader | list:
        """Return all held-out rows; those that begin alike together, the rest as in the file."""
        if not len(self.val_rows):
            return []
        return self._loader(self.val, self.val_rows, self.val_plans)

    def held_out(self) -> Iterator[tuple[str, list[Message], Judged]]:
        """Yield the validation rows, each with its location and the answers it does not learn."""
        val = self.val
        return ((val.location(x), val.messages(x), val.judged(x)) for x in self.val_rows.tolist())

    def step_locations(self) -> list[str]:
        """Return file and line of each row of the current optimizer step, over all ranks."""
        rows = self.plans.step_rows(self._trainer.current_epoch, self._trainer.global_step)
        return [self.store.location(row) for row in self.train_rows[list(rows)].tolist()]

    def largest_micro_batch(self, epochs: int | None = None, every_rank: bool = False) -> Batch:
        """Return the micro-batch with the most tokens that this rank, or any, meets in the run."""
        rank = None if every_rank else self._trainer.global_rank
        rows = self.plans.largest(epochs or self._trainer.max_epochs or 1, rank)
        examples = [self.store.example(row) for row in self.train_rows[rows]]
        return collate(examples, 1, neighbors=neighbors_of(self.plans.beginnings, rows))

    def _loader(
        self, store: "Store", rows: np.ndarray, plans: EpochPlans, epoch: int = 0, start: int = 0
    ) -> DataLoader:
        batches = MicroBatches(store, rows, plans, self._trainer.global_rank, epoch)
        pinned = self._trainer.strategy.root_device.type == "cuda"
        return micro_batch_loader(batches, start, self.num_workers, pinned)

    @property
    def _trainer(self) -> L.Trainer:
        if self.trainer is None:
            raise RuntimeError("the data module has no trainer yet")
        return self.trainer
