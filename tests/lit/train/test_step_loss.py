"""The loss that is logged for an optimizer step is the mean loss of its labeled tokens."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from conftest import PLANNED, make_trainer
from transformers import PreTrainedModel

from data.planning.batch import collate, separate
from data.types import IGNORE, Batch, Example
from lit.model.embedding_noise import EmbeddingNoise
from lit.model.loss import summed_loss
from lit.train.datamodule import QADataModule
from lit.train.module import LoRAModule
from lit.train.step_guard import TrainingError
from lit.train.step_loss import StepLoss, labels_of_step
from lora.config import ConfigError, LoRAConfig

ROWS = [(f"Question {i}?", " ".join(["word"] * (1 + 7 * (i % 4)))) for i in range(11)]


def batch_of(labels: int, step_labels: int = 0) -> Batch:
    """Return a batch of one row."""
    ids = list(range(5, 6 + labels))
    return collate([Example(ids, [IGNORE, *ids[1:]])], step_labels)


def test_the_loss_of_a_step_does_not_contain_the_step_before() -> None:
    step_loss = StepLoss()
    for shares in ((1.0, 2.0), (4.0,)):
        for share in shares:
            step_loss.add(torch.tensor(share, requires_grad=True), batch_of(3), 3 * len(shares))
        sums = step_loss.take()
        assert sums.tolist() == [sum(shares), 3 * len(shares)]
        assert not sums.requires_grad
    assert step_loss.take().tolist() == [0, 0]


@pytest.mark.parametrize(("labels", "fits"), [(5, True), (4, False), (0, False)])
def test_the_labels_of_all_ranks_are_those_that_the_loss_was_divided_by(
    labels: int, fits: bool
) -> None:
    step_loss = StepLoss()
    step_loss.add(torch.tensor(1.0), batch_of(3), planned=8)
    _, own = step_loss.take().tolist()
    if fits:
        step_loss.check(own + labels, step=7)
    else:
        with pytest.raises(TrainingError, match=f"step 7: its micro-batches have {3 + labels} lab"):
            step_loss.check(own + labels, step=7)


@pytest.mark.parametrize(
    ("accumulate", "ranks", "fits"), [(1, 1, True), (2, 1, False), (1, 2, False)]
)
def test_a_batch_without_step_labels_must_be_the_whole_step(
    accumulate: int, ranks: int, fits: bool
) -> None:
    trainer: Any = SimpleNamespace(accumulate_grad_batches=accumulate, world_size=ranks)
    examples = [Example([5, 6, 7], [IGNORE, 6, 7])]
    assert labels_of_step(collate(examples, step_labels=9), trainer) == 9
    if fits:
        assert labels_of_step(collate(examples), trainer) == 2
    else:
        with pytest.raises(ConfigError, match="step_labels"):
            labels_of_step(collate(examples), trainer)


@pytest.mark.parametrize(("accumulate", "ranks"), [(1, 1), (4, 1), (1, 3), (4, 3)])
def test_a_share_is_multiplied_by_what_lightning_and_ddp_divide_by(
    accumulate: int, ranks: int, tiny_model: PreTrainedModel
) -> None:
    module = LoRAModule("unused", lora=LoRAConfig())
    module.model = tiny_model
    module.noise = EmbeddingNoise(tiny_model.get_input_embeddings(), 0.0)
    trainer: Any = SimpleNamespace(accumulate_grad_batches=accumulate, world_size=ranks)
    module.trainer = trainer
    batch = collate([Example([5, 6, 7], [IGNORE, 6, 7])], step_labels=40)
    share = summed_loss(tiny_model, batch) / 40
    torch.testing.assert_close(module.training_step(batch, 0), share * accumulate * ranks)
    assert module.step_loss.take().tolist() == [float(share), 2]
    assert module.step_loss.planned == 40


def mean_loss(model: torch.nn.Module, batches: list[Batch]) -> float:
    """Return the mean loss of the labeled tokens, by the model's own logits of each row alone."""
    logits, labels = [], []
    for batch in batches:
        batch = separate(batch)
        lengths = batch.cu_seqlens.diff().tolist()
        rows = zip(batch.input_ids.split(lengths, 1), batch.labels.split(lengths, 1), strict=True)
        for ids, targets in rows:
            logits.append(model(input_ids=ids).logits[0, :-1])
            labels.append(targets[0, 1:])
    return float(F.cross_entropy(torch.cat(logits), torch.cat(labels)))


class LoggedLosses(L.Callback):
    """Keeps the logged loss of each optimizer step, and computes it in another way."""

    def __init__(self) -> None:
        self.logged: list[float] = []
        self.expected: list[float] = []
        self.batches: list[Batch] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self.batches.append(batch)
        if trainer.global_step > len(self.logged):
            self.logged.append(float(trainer.callback_metrics["train/loss"]))
            model = pl_module.adapted_model
            before = model.config._attn_implementation
            model.set_attn_implementation("sdpa")
            with torch.no_grad():
                self.expected.append(mean_loss(model, self.batches))
            model.set_attn_implementation(before)
            self.batches.clear()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_logged_loss_is_the_mean_over_the_labels_of_the_step(
    accumulate: int, tiny_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer\n" + "".join(f"{q},{a}\n" for q, a in ROWS), "utf-8")
    # So small a learning rate that the adapter equals the base to the last digit compared here.
    model = LoRAModule(str(tiny_folder), lora=LoRAConfig(r=4), lr=1e-9, warmup=0)
    data = QADataModule(str(path), base=str(tiny_folder), val_fraction=0, batch_size=2)
    losses = LoggedLosses()
    trainer = make_trainer(
        max_epochs=2, accumulate_grad_batches=accumulate, callbacks=[losses], **PLANNED
    )
    trainer.fit(model, data)
    assert len(losses.logged) == 2 * -(-6 // accumulate)
    assert losses.logged == pytest.approx(losses.expected, rel=1e-5)
