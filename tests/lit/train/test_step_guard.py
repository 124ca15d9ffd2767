"""Steps that must not change the adapter, and memory that must last."""

import json
from pathlib import Path

import lightning as L
import pytest
import torch

import lit.device.memory
import lit.train.longest_batch
from data.types import Batch
from lit.fit import main
from lit.train.module import LoRAModule


@pytest.fixture
def command(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """A run of 4 optimizer steps."""
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Why {i}?", "response": "So. " * (1 + i)} for i in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return [
        *("--model.base", str(tiny_folder), "--data.path", str(path)),
        *("--output_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"),
        *("--data.val_fraction", "0.2", "--data.batch_size", "2", "--model.lr", "1e-2"),
        *("--trainer.max_epochs", "1", "--model.lora.lora_dropout", "0.1"),
    ]


def test_an_adapter_whose_B_stays_zero_ends_the_run_with_1(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    end = LoRAModule.on_train_start

    def still(module: LoRAModule) -> None:
        end(module)
        for group in module.optimizers().param_groups:
            group["lr"] = 0.0
        module.lr_schedulers().base_lrs = [0.0]

    monkeypatch.setattr(LoRAModule, "on_train_start", still)
    assert main(command) == 1
    assert "B of 14 of 14 adapted layers is still zero after 4 steps" in capsys.readouterr().err


@pytest.mark.parametrize(("mode", "code"), [("stop", 1), ("skip", 0)])
def test_a_validation_loss_of_nan_is_never_the_best(
    mode: str,
    code: int,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    begin = LoRAModule.on_validation_start

    def poisoned(module: LoRAModule) -> None:
        begin(module)
        if module.trainer.global_step == 2:
            module._val_loss.add(torch.tensor(torch.nan), torch.tensor(1))

    monkeypatch.setattr(LoRAModule, "on_validation_start", poisoned)
    more = ["--trainer.val_check_interval", "1", "--model.on_nonfinite", mode]
    assert main([*command, *more]) == code
    said = capsys.readouterr()
    assert ("step 2: the validation loss is nan" in said.err) == bool(code)
    state = (
        torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
        if not (code)
        else {"callbacks": {"BestAdapter": {"loss": 0.0}}}
    )
    assert state["callbacks"]["BestAdapter"]["loss"] < 100


def test_a_base_whose_loss_is_nan_ends_the_run_before_training(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    step = LoRAModule.validation_step

    def poisoned(module: LoRAModule, *args: object) -> None:
        step(module, *args)
        module._val_loss.add(torch.tensor(torch.nan), torch.tensor(0))

    monkeypatch.setattr(LoRAModule, "validation_step", poisoned)
    assert main(command) == 1
    assert "the validation loss of the base model is nan" in capsys.readouterr().err


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_longest_micro_batch_is_tried_after_the_first_step_and_changes_no_weight(
    accumulate: int, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    try_batch = lit.train.longest_batch.try_batch

    def noted(trainer: L.Trainer, module: LoRAModule, batch: Batch) -> None:
        seen.append((trainer.global_step, batch, trainer.datamodule))
        try_batch(trainer, module, batch)

    monkeypatch.setattr(lit.train.longest_batch, "try_batch", noted)
    monkeypatch.setattr(lit.device.memory, "total_memory", lambda device: 1)
    command += ["--force", "true", "--trainer.accumulate_grad_batches", str(accumulate)]
    assert main(command) == 0
    [(step, batch, data)] = seen
    assert step == 1
    planned = data.plans.epoch(0)
    assert batch.input_ids.numel() == planned.tokens.max()
    monkeypatch.setattr(lit.device.memory, "total_memory", lambda device: 10**15)
    assert main([*command, "--output_dir", str(tmp_path / "without")]) == 0
    assert len(seen) == 1
    with_it, without = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "without")
    )
    assert all(torch.equal(value, without[name]) for name, value in with_it.items())


def test_too_little_memory_for_the_longest_micro_batch_ends_the_run_after_the_first_step(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    step, calls = LoRAModule.training_step, []

    def lacking(module: LoRAModule, *args: object) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("no")
        return step(module, *args)

    monkeypatch.setattr(LoRAModule, "training_step", lacking)
    monkeypatch.setattr(lit.device.memory, "total_memory", lambda device: 1)
    assert main([*command, "--force", "true"]) == 1
    said = capsys.readouterr().err
    assert "out of memory in the longest micro-batch, 2 rows of " in said
    assert "Lower data.batch_size" in said


@pytest.mark.parametrize("memory", [1, 10**15])
def test_freed_memory_is_returned_only_where_memory_is_scarce(
    memory: int, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    returned = []
    monkeypatch.setattr(lit.device.memory, "total_memory", lambda device: memory)
    monkeypatch.setattr(lit.train.longest_batch, "trim_heap", lambda: returned.append(True))
    assert main([*command, "--force", "true"]) == 0
    assert bool(returned) == (memory == 1)
    assert ("memory little is left" in capsys.readouterr().out) == (memory == 1)
