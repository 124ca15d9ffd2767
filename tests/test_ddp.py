"""Runs of several processes, which talk by gloo on the loopback."""

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command import Command, Result

MODULE = "lit.module.LoRAModule"
random_ = random.Random(0)
ROWS = [
    {
        "prompt": f"How warm must bed {i} be?",
        "response": " and ".join(str(random_.randint(40, 99)) for _ in range(1 + i % 7)) + ".",
    }
    for i in range(46)
]
"""37 of them train: 19 micro-batches of two rows, and of one in the end."""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command."""
    made = Command(tmp_path_factory.mktemp("command"))
    yield made
    made.server.terminate()
    made.server.wait()


@pytest.fixture(scope="module")
def settings(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """5 epochs of 3 steps of 6 micro-batches and a short one of a single micro-batch."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return [
        *("--model.base", str(tiny_folder), "--data.path", str(path)),
        *("--trainer.accelerator", "cpu", "--model.lr", "1e-2", "--model.warmup", "4"),
        *("--data.val_fraction", "0.2", "--data.batch_size", "2", "--trainer.max_epochs", "5"),
        *("--checkpoint.every_n_train_steps", "1", "--checkpoint.save_top_k", "-1"),
        *("--model.lora.lora_dropout", "0.1", "--model.lora.r", "4"),
    ]


def shared(ranks: int, product: int = 6) -> list[str]:
    """So many ranks, for optimizer steps of so many micro-batches in all."""
    several = ["--trainer.strategy", "ddp"] if ranks > 1 else []
    k = str(product // ranks)
    return ["--trainer.devices", str(ranks), "--trainer.accumulate_grad_batches", k, *several]


def well(ended: list[Result]) -> None:
    """See that all ranks came to their end, and only the first one spoke."""
    for rank, result in enumerate(ended):
        assert result.code == 0, (rank, result.error)
        assert not result.error
        assert bool(result.out) == (rank == 0), result.out


@pytest.fixture(scope="module")
def runs(
    command: Command, settings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """The folders of the same run by one, two and three processes."""
    folder = tmp_path_factory.mktemp("runs")
    for ranks in (1, 2, 3):
        args = [*settings, *shared(ranks), "--output_dir", str(folder / str(ranks))]
        started = command.together(args, ranks) if ranks > 1 else [command.start(args, name="-0")]
        well(command.ends(started))
    return {ranks: folder / str(ranks) for ranks in (1, 2, 3)}


def checkpoint(run: Path, step: int) -> dict:
    return torch.load(run / "checkpoints" / f"step-{step}.ckpt", weights_only=True)


def table(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [{k: v for k, v in row.items() if k != "train/tokens_per_s"} for row in rows]


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_processes_give_the_gradients_and_the_adapter_of_one(
    ranks: int, runs: dict[int, Path]
) -> None:
    for step in range(1, 21):
        ours, theirs = (checkpoint(runs[n], step) for n in (ranks, 1))
        torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=1e-5)
        for a, b in zip(ours["optimizer_states"], theirs["optimizer_states"], strict=True):
            torch.testing.assert_close(a["state"], b["state"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_processes_log_what_one_logs(ranks: int, runs: dict[int, Path]) -> None:
    ours, theirs = table(runs[ranks]), table(runs[1])
    assert len(ours) == len(theirs) == 26
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
        if "val/loss" in b:
            assert a["val/loss"] == pytest.approx(b["val/loss"], rel=1e-6)


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_folder_of_several_processes_holds_what_one_writes(
    ranks: int, runs: dict[int, Path]
) -> None:
    names = [sorted(str(p.relative_to(runs[n])) for p in runs[n].rglob("*")) for n in (ranks, 1)]
    ours, theirs = ([name for name in listed if "tfevents" not in name] for listed in names)
    assert ours == theirs
    assert len(names[0]) == len(names[1])
