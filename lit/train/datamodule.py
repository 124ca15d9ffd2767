"""The LightningDataModule: a file of questions and answers becomes planned, flat batches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import lightning as L
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from data.loader import MicroBatches, MicroStepSampler
from data.plan import Plan, micro_batches, plan
from data.step_map import Segment, StepMap
from data.template import choose_template
from data.types import IGNORE, DataError, Example, Message
from lit.model.base import load_tokenizer

if TYPE_CHECKING:  # half a second to import, which --help and a wrong setting need not wait for
    from data.store import Store


class QADataModule(L.LightningDataModule):
    """Reads, splits, tokenizes and plans.

    Args:
        path: A .jsonl, .json, .csv, .tsv or .parquet file, a folder of such files,
            ``hub:OWNER/NAME``, or a list of these.
        val_path: The same, to validate on; without it, a share of ``path`` is held out.
        val_fraction: That share.
        columns: The data's name for a field, by ours, like ``{prompt: question_text}``.
        encoding: Of text files; by default UTF-8, or what their byte order mark says.
        separator: Of .csv files; by default found in the header.
        template: ``auto`` (the model's chat template, else plain), ``chat``, ``plain``, or a
            Jinja file.
        max_length: Tokens a row may have.
        batch_size: Rows of a micro-batch.
        max_tokens: Tokens of a micro-batch.
        truncation: For longer rows: ``middle`` (cut the prompt's middle), ``drop``, ``error``.
        on_bad_row: ``error``, or ``skip`` and count.
        on_duplicate: What becomes of a validation row that is a training row too: ``leave_out``, or
            ``keep``.
        near_duplicates: The share of text above which rows are near-duplicates, like 0.8; they
            then stay on one side. Off unless given.
        group_by_length: Make micro-batches of rows of about the same length.
        num_workers: Processes that prepare batches.
        base: Taken from ``model.base``.
        revision: Taken from ``model.revision``.
        seed: Taken from ``seed_everything``.
    """

    def __init__(
        self,
        path: str | list[str],
        val_path: str | list[str] | None = None,
        val_fraction: float = 0.1,
        columns: dict[str, str] | None = None,
        encoding: str | None = None,
        separator: str | None = None,
        template: str = "auto",
        max_length: int = 512,
        batch_size: int = 4,
        max_tokens: int | None = None,
        truncation: str = "middle",
        on_bad_row: str = "error",
        on_duplicate: str = "leave_out",
        near_duplicates: float | None = None,
        group_by_length: bool = False,
        num_workers: int = 0,
        base: str = "",
        revision: str | None = None,
        seed: int = 42,
    ) -> None:
        super().__init__()
        from data.readers.source import Source
        from data.split import split_train_val
        from data.store import build

        self.source = Source(path, encoding, separator, columns or {})
        self.val_source = replace(self.source, path=val_path) if val_path else None
        self.template, self.base, self.revision = template, base, revision
        self.batch_size, self.max_tokens = batch_size, max_tokens
        self.group_by_length = group_by_length
        self.num_workers, self.seed = num_workers, seed
        self._build = partial(
            build, max_length=max_length, truncation=truncation, on_bad_row=on_bad_row
        )
        self._part = partial(
            split_train_val,
            fraction=val_fraction,
            seed=seed,
            near_duplicates=near_duplicates,
            on_duplicate=on_duplicate,
        )
        self._train: Store | None = None
        self._step_map: StepMap | None = None

    def setup(self, stage: str = "fit") -> None:
        """TokenizeRows, or find what was tokenized, and split."""
        if self._train is not None:
            return
        self.tokenizer = load_tokenizer(self.base, self.revision)
        self.template = choose_template(self.tokenizer, self.template)
        train = self._build(self.source, self.tokenizer)
        val = self._build(self.val_source, self.tokenizer) if self.val_source else None
        sides = self._part(train, val)
        self.val, self.overlap = sides.val, sides.overlap
        self.train_rows, self.val_rows = sides.train_rows, sides.val_rows
        if not train.targets[self.train_rows].any():
            raise DataError(f"no token of {self.source} is to be learned: see data.max_length")
        if len(self.val_rows) and not self.val.targets[self.val_rows].any():
            raise DataError("the validation rows have no label: no loss can be computed of them")
        self._train = train

    def held_out(self) -> Iterator[tuple[str, list[Message]]]:
        """The validation rows, each with its place."""
        return ((self.val.location(row), self.val.messages(row)) for row in self.val_rows.tolist())

    def endings(self, lengths: Sequence[int]) -> list[Example]:
        """The last so many tokens of a few training rows, all labeled, to check a model on.

        The first may be the same in all rows.
        """
        rows = self.train_rows[: len(lengths)]
        found = [self.store.example(row).ids[-n:] for row, n in zip(rows, lengths, strict=False)]
        return [Example(ids, [IGNORE, *ids[1:]]) for ids in found]

    def prompts(self, rows: int) -> tuple[PreTrainedTokenizerBase, list[list[int]]]:
        """The tokens before the first answer of a few held-out rows, and the tokenizer."""
        spread = self.val_rows[:: max(1, len(self.val_rows) // rows)][:rows]
        examples = [self.val.example(row) for row in spread]
        starts = [next(i for i, y in enumerate(x.labels) if y != IGNORE) for x in examples]
        return self.tokenizer, [x.ids[:i] for x, i in zip(examples, starts, strict=True)]

    def epoch(self, epoch: int) -> Plan:
        """The plan of an epoch of training; of what is left, where a run goes on in its midst."""
        return plan(
            self.store.lengths[self.train_rows],
            self.store.targets[self.train_rows],
            **self._order(epoch),
            accumulate=self._trainer.accumulate_grad_batches,
            world_size=self._trainer.world_size,
            skip=self.step_map.of(epoch).skipped,
        )

    @property
    def step_map(self) -> StepMap:
        """Which micro-batches each optimizer step is made of."""
        per_step = self._trainer.accumulate_grad_batches * self._trainer.world_size
        if self._step_map is None:
            self._step_map = StepMap((Segment(0, 0, 0, per_step),), cache(self._count))
        return self._step_map

    def resume_from(self, segments: Iterable[Sequence[int]], step: int) -> None:
        """Continue the step map of a run after a step, from there on with steps of this size."""
        now = self.step_map
        then = tuple(Segment(*segment) for segment in segments) or now.segments
        self._step_map = replace(now, segments=then).resumed(step, now.segments[-1].per_step)

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        epochs, most = self._trainer.max_epochs, self._trainer.max_steps
        if epochs is None or epochs < 0:
            return most
        steps = self.step_map.steps(epochs)
        return steps if most < 0 else min(steps, most)

    def epoch_of(self, step: int) -> int:
        """The epoch that an optimizer step, from 0, is in."""
        return self.step_map.at(max(step, 0)).epoch

    def step_locations(self) -> list[str]:
        """Where the rows of the current optimizer step were read, over all ranks."""
        planned = self.epoch(self._trainer.current_epoch)
        begin = self.micro_step(self._trainer.current_epoch, self._trainer.global_step)
        micro_steps = range(begin, min(begin + planned.accumulate, planned.micro_steps))
        ranks = range(planned.world_size)
        rows = [
            row
            for micro_step in micro_steps
            for rank in ranks
            for row in planned.rows(rank, micro_step)
        ]
        return [self.store.location(row) for row in self.train_rows[rows].tolist()]

    def micro_step(self, epoch: int, step: int) -> int:
        """The micro_step of an epoch's plan that comes after so many optimizer steps of the run."""
        planned, span = self.epoch(epoch), self.step_map.of(epoch)
        if step >= span.step + span.steps:
            return planned.micro_steps
        return max(step - span.step, 0) * planned.accumulate

    def train_dataloader(self) -> DataLoader:
        """The rest of the current epoch: all of it, unless the run was resumed in mid-epoch."""
        epoch, rank = self._trainer.current_epoch, self._trainer.global_rank
        planned = self.epoch(epoch)
        batches = MicroBatches(self.store, self.train_rows, planned, rank, epoch)
        # The plan is a pure function, so the number of steps done is the whole position.
        start = self.micro_step(epoch, self._trainer.global_step)
        return self._loader(batches, MicroStepSampler(start, planned.micro_steps))

    def val_dataloader(self) -> DataLoader | list:
        """All held-out rows, in the order of the file."""
        if not len(self.val_rows):
            return []
        planned = plan(
            self.val.lengths[self.val_rows],
            self.val.targets[self.val_rows],
            batch_size=self.batch_size,
            max_tokens=self.max_tokens,
            world_size=self._trainer.world_size,
        )
        batches = MicroBatches(self.val, self.val_rows, planned, self._trainer.global_rank)
        return self._loader(batches, MicroStepSampler(0, planned.micro_steps))

    def _order(self, epoch: int) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "max_tokens": self.max_tokens,
            "group_by_length": self.group_by_length,
            "seed": self.seed,
            "epoch": epoch,
        }

    def _count(self, epoch: int) -> int:
        _, starts = micro_batches(self.store.lengths[self.train_rows], **self._order(epoch))
        return len(starts) - 1

    def _loader(self, batches: MicroBatches, micro_steps: MicroStepSampler) -> DataLoader:
        return DataLoader(
            batches,
            batch_size=None,
            sampler=micro_steps,
            num_workers=self.num_workers,
            pin_memory=self._trainer.strategy.root_device.type == "cuda",
        )

    @property
    def store(self) -> "Store":
        """The rows of ``path``, once they are read."""
        if self._train is None:
            raise RuntimeError("setup has not been called")
        return self._train

    @property
    def _trainer(self) -> L.Trainer:
        if self.trainer is None:
            raise RuntimeError("the data module has no trainer yet")
        return self.trainer
