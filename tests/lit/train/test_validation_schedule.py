"""data.val_every_n_steps: the optimizer steps after which a run validates."""

import csv
import json
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import PLANNED, make_trainer
from torch.utils.data import DataLoader

from data.planning.loader import MicroStepSampler
from lit.fit import main
from lit.train.datamodule import QADataModule
from lit.train.validation_schedule import ValidationSchedule
from lora.config import ConfigError

STEPS = {
    # micro-batches of an epoch, of a step, n, epochs
    "steps of one micro-batch": (8, 1, 3, 2),
    "a short last step in each epoch": (7, 3, 2, 3),
    "epochs that end at a validation": (8, 4, 2, 2),
    "after each step": (4, 2, 1, 2),
    "more steps than an epoch has": (6, 4, 5, 3),
    "more steps than the run has": (4, 2, 99, 2),
}


class Counted(L.LightningModule):
    """Trains a number; notes the optimizer steps after which it is validated.

    Args:
        path: Where to save a checkpoint of each step.
        batches: Micro-batches of an epoch.
    """

    def __init__(self, path: Path, batches: int) -> None:
        super().__init__()
        self.path, self.batches = path, batches
        self.number = torch.nn.Parameter(torch.zeros(()))
        self.validated: list[int] = []

    def train_dataloader(self) -> DataLoader:
        """Return the rest of the epoch, as QADataModule does."""
        size = self.trainer.accumulate_grad_batches
        before = self.trainer.current_epoch * -(-self.batches // size)
        first = min((self.trainer.global_step - before) * size, self.batches)
        return DataLoader(torch.ones(self.batches), sampler=MicroStepSampler(first, self.batches))

    def val_dataloader(self) -> DataLoader:
        return DataLoader(torch.ones(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.number * batch.sum()

    def on_train_batch_end(self, *_: object) -> None:
        self.trainer.save_checkpoint(self.path / f"{self.trainer.global_step}.ckpt")

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        pass

    def on_validation_end(self) -> None:
        self.validated.append(self.trainer.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("case", STEPS)
def test_the_steps_of_validation_are_the_multiples_of_n_also_resumed(
    case: str, tmp_path: Path
) -> None:
    batches, accumulate, n, epochs = STEPS[case]
    steps = epochs * -(-batches // accumulate)
    for start in (None, *range(1, steps)):
        module = Counted(tmp_path, batches)
        trainer = make_trainer(
            callbacks=[ValidationSchedule(n)],
            max_epochs=epochs,
            accumulate_grad_batches=accumulate,
            num_sanity_val_steps=0,
            **PLANNED,
        )
        path = tmp_path / f"{start}.ckpt" if start else None
        trainer.fit(module, ckpt_path=path, weights_only=True)
        # The validation after the step of the checkpoint is ResumeState's.
        assert module.validated == [s for s in range((start or 0) + 1, steps + 1) if s % n == 0]
        assert trainer.global_step == steps


@pytest.fixture
def command(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """A run of rows.jsonl with a row in each micro-batch and a checkpoint of each step."""
    return [
        *("--model.base", str(tiny_folder), "--data.path", str(tmp_path / "rows.jsonl")),
        *("--data.val_path", str(tmp_path / "val.jsonl"), "--data.batch_size", "1"),
        *("--output_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"),
        *("--model.lr", "1e-2", "--model.warmup", "0", "--model.lora.r", "2"),
        *("--checkpoint.every_n_train_steps", "1", "--checkpoint.save_top_k", "-1"),
    ]


def write_rows(folder: Path, count: int) -> None:
    for name, word, rows in (("rows", "bed", count), ("val", "nozzle", 2)):
        texts = [
            json.dumps({"prompt": f"How warm is {word} {i}?", "response": f"{50 + i} degrees."})
            for i in range(rows)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(texts), "utf-8")


def validations(run: Path) -> dict[int, str]:
    """Return the loss of each validation of a run, by the optimizer steps before it."""
    with (run / "metrics.csv").open() as file:
        return {int(r["step"]): r["val/loss"] for r in csv.DictReader(file) if r["val/loss"]}


def test_a_resumed_run_validates_where_the_whole_run_does_or_as_it_is_asked(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Two epochs of three steps, the last of them short."""
    write_rows(tmp_path, 7)
    asked = ["--trainer.max_epochs", "2", "--trainer.accumulate_grad_batches", "3"]
    assert main([*command, *asked, "--data.val_every_n_steps", "2"]) == 0
    printed = capsys.readouterr().out
    assert "validates after every 2 optimizer steps, and after the last optimizer step" in printed
    whole = validations(tmp_path / "run")
    assert list(whole) == [0, 2, 4, 6]
    # A checkpoint is written before the validation of its step; step 3 ends an epoch.
    for point, n, steps in ((4, 2, [4, 6]), (3, 5, [5, 6])):
        resumed = tmp_path / f"resumed-{point}"
        start = str(tmp_path / "run" / "checkpoints" / f"step-{point}.ckpt")
        more = ["--output_dir", str(resumed), "--ckpt_path", start]
        assert main([*command, *asked, *more, "--data.val_every_n_steps", str(n)]) == 0
        after = validations(resumed)
        assert list(after) == steps
        assert {step: whole[step] for step in steps if step in whole}.items() <= after.items()
    printed = capsys.readouterr().out
    assert "data.val_every_n_steps is 5, was 2: using the new value" in printed


REFUSED = {
    "no step": (["--data.val_every_n_steps", "0"], "data.val_every_n_steps is 0: choose 1"),
    "micro-batches": (["--trainer.val_check_interval", "2"], "trainer.val_check_interval is 2, "),
    "a share": (["--trainer.val_check_interval", "1.0"], "add --trainer.val_check_interval null"),
    "a time": (["--trainer.val_check_interval", "00:00:01:00"], "val_check_interval is 00:00:01"),
    "epochs": (["--trainer.check_val_every_n_epoch", "2"], "check_val_every_n_epoch is 2, two"),
    "no epochs": (
        ["--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "2"],
        "check_val_every_n_epoch is null, two intervals of validation: remove one of them, or add "
        "--trainer.check_val_every_n_epoch 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_two_intervals_of_validation_are_refused(
    case: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more, text = REFUSED[case]
    write_rows(tmp_path, 4)
    assert main([*command, "--data.val_every_n_steps", "2", *more]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("error") == 1


@pytest.mark.parametrize(
    "settings", [{"val_check_interval": 2}, {"val_check_interval": "00:00:01:00"}]
)
def test_a_trainer_of_ones_own_with_another_interval_is_refused(
    settings: dict, tiny_folder: Path, tmp_path: Path
) -> None:
    write_rows(tmp_path, 4)
    data = QADataModule(str(tmp_path / "rows.jsonl"), base=str(tiny_folder), val_every_n_steps=2)
    data.trainer = make_trainer(**PLANNED, **settings)
    with pytest.raises(ConfigError, match="two intervals of validation"):
        data.setup()
