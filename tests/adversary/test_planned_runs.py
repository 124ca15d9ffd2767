"""B3: the plan knows all that a Trainer computes, or the run is refused before it trains."""

import csv
import inspect
import json
from pathlib import Path
from typing import Any

import lightning as L
import lightning.pytorch.callbacks
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from data.planning.batch import separate
from data.types import Batch
from lit.fit import main
from lit.packing.pack import unpacked
from lit.train.module import LoRAModule
from lit.train.schedule import lr_factor
from lit.train.trainer_check import REFUSED_CALLBACKS

RUNS = "runs"
"""The argument decides what a run computes, and the plan knows it."""
FREE = "free"
"""The argument changes no number; all of these are tried in one run."""
SCHEDULER = """[{"class_path": "GradientAccumulationScheduler",
                 "init_args": {"scheduling": {"0": 2}}}]"""
LR = 1e-2

ARGUMENTS: dict[str, list[tuple[str, str]]] = {
    "accelerator": [("cpu", FREE)],
    "strategy": [
        ("single_device", FREE),
        ("ddp_spawn", "set trainer.strategy to ddp"),
        ("ddp_fork", "set trainer.strategy to ddp"),
        ("ddp_notebook", "set trainer.strategy to ddp"),
        ("fsdp", "set trainer.strategy to fsdp2"),
    ],
    "devices": [("1", FREE)],
    "num_nodes": [("1", FREE)],
    "precision": [
        ("32-true", FREE),
        ("64-true", "trainer.precision is 64-true; choose auto, 32-true"),
    ],
    "logger": [("false", "trainer.logger is False: a run logs to TensorBoard and metrics.csv")],
    "callbacks": [
        ('[{"class_path": "LearningRateMonitor"}]', FREE),
        ('{"class_path": "LearningRateMonitor"}', FREE),
        (SCHEDULER, "use trainer.accumulate_grad_batches"),
    ],
    "fast_dev_run": [
        ("true", "add --trainer.max_steps 1"),
        ("3", "add --trainer.max_steps 3"),
    ],
    "max_epochs": [("1", RUNS), ("-1", "so the run has no end"), ("0", "no optimizer step")],
    "min_epochs": [("2", RUNS), ("5", "raise trainer.max_epochs")],
    "max_steps": [("4", RUNS), ("0", "no optimizer step")],
    "min_steps": [("2", RUNS), ("50", "raise trainer.max_epochs")],
    "max_time": [("00:01:00:00", RUNS)],
    "limit_train_batches": [
        ("3", RUNS),
        ("1", RUNS),
        ("99", RUNS),
        ("1.0", RUNS),
        ("0.5", "trainer.limit_train_batches is 0.5, a share"),
        ("0", "no row would train"),
        ("0.0", "trainer.limit_train_batches is 0.0"),
    ],
    "limit_val_batches": [
        ("1.0", RUNS),
        ("0", "lower data.val_fraction"),
        ("1", "lower data.val_fraction"),
        ("0.5", "lower data.val_fraction"),
    ],
    # A run neither tests nor predicts.
    "limit_test_batches": [("1", FREE)],
    "limit_predict_batches": [("1", FREE)],
    "overfit_batches": [("2", "give the rows to overfit as data.path"), ("0.5", "data.path")],
    "val_check_interval": [
        ("2", RUNS),
        ("0.5", RUNS),
        ("00:01:00:00", RUNS),
        ("0", "trainer.val_check_interval is 0"),
        ("0.0", "trainer.val_check_interval is 0"),
        ("99", "an epoch has 5 micro-batches"),
    ],
    "check_val_every_n_epoch": [
        ("2", RUNS),
        ("9", RUNS),
        ("0", "trainer.check_val_every_n_epoch is 0"),
    ],
    "num_sanity_val_steps": [("2", "measured before training anyway"), ("-1", "remove it")],
    "log_every_n_steps": [("1", FREE)],
    "enable_checkpointing": [("false", "cannot be resumed")],
    "enable_progress_bar": [("false", FREE)],
    "enable_model_summary": [("true", FREE)],
    "accumulate_grad_batches": [
        ("1", RUNS),
        ("3", RUNS),
        ("99", RUNS),
        ("0", "trainer.accumulate_grad_batches is 0"),
    ],
    "gradient_clip_val": [
        ("0.01", RUNS),
        ("0", RUNS),
        ("-1", "trainer.gradient_clip_val is -1"),
        (".nan", "trainer.gradient_clip_val is nan"),
    ],
    "gradient_clip_algorithm": [("value", RUNS), ("none", "gradient_clip_algorithm")],
    "deterministic": [("true", FREE)],
    "benchmark": [("true", FREE)],
    "inference_mode": [("false", FREE)],
    "use_distributed_sampler": [("true", FREE)],
    "profiler": [("simple", FREE)],
    "detect_anomaly": [("true", FREE)],
    "barebones": [("true", "it logs nothing and saves nothing")],
    "plugins": [("TorchCheckpointIO", "a run has its own checkpoint plugin")],
    "sync_batchnorm": [("true", FREE)],
    "reload_dataloaders_every_n_epochs": [("0", "set it to 1"), ("2", "set it to 1")],
    "default_root_dir": [("elsewhere", "add --output_dir instead")],
    "enable_autolog_hparams": [("false", FREE)],
    "model_registry": [("me/model", "upload output_dir/adapter")],
}
"""Every argument of lightning.Trainer: values, and what the run says of each."""
CASES = [(name, *case) for name, cases in ARGUMENTS.items() for case in cases]
FREE_ARGUMENTS = [part for name, value, text in CASES if text == FREE for part in (name, value)]
FOLLOWED = {(name, value) for name, value, text in CASES if text == RUNS}
TOGETHER = [
    {"max_epochs": "1", "accumulate_grad_batches": "1", "limit_train_batches": "1.0"},
    {"min_epochs": "2", "min_steps": "2", "max_time": "00:01:00:00", "limit_val_batches": "1.0"},
    {"max_steps": "4", "accumulate_grad_batches": "3", "gradient_clip_val": "0.01"},
    {"limit_train_batches": "3", "check_val_every_n_epoch": "2", "gradient_clip_val": "0"},
    {"limit_train_batches": "1", "check_val_every_n_epoch": "9"},
    {"limit_train_batches": "99", "val_check_interval": "0.5", "gradient_clip_algorithm": "value"},
    {"accumulate_grad_batches": "99", "val_check_interval": "00:01:00:00"},
    {"val_check_interval": "2"},
]
"""Every argument that is followed, in as few runs as its values need."""
REFUSED = [case for case in CASES if case[2] not in (RUNS, FREE)]

CALLBACKS = {
    *("BasePredictionWriter", "Callback", "Checkpoint", "DeviceStatsMonitor", "EarlyStopping"),
    *("LambdaCallback", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary"),
    *("OnExceptionCheckpoint", "ProgressBar", "RichModelSummary", "RichProgressBar"),
    *("SpikeDetection", "ThroughputMonitor", "Timer", "TQDMProgressBar"),
}
"""Lightning's callbacks that change neither the plan nor the weights."""


@pytest.fixture
def command(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """A run of 2 epochs of 9 rows in 5 micro-batches, 2 in a step; the last step is short."""
    rows = [
        {"prompt": f"How warm is {i}?", "response": "So. " * (1 + i * i // 2)} for i in range(12)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return [
        *("--model.base", str(tiny_folder), "--data.path", str(path)),
        *("--output_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"),
        *("--data.val_fraction", "0.25", "--data.batch_size", "2", "--trainer.max_epochs", "2"),
        *("--trainer.accumulate_grad_batches", "2", "--model.scheduler", "linear"),
        *("--model.lr", str(LR), "--model.warmup", "0"),
    ]


def exact_loss(module: LoRAModule, batch: Batch) -> tuple[float, int]:
    """Return the summed loss and the labels of a micro-batch, row by row, by transformers."""
    batch = separate(batch)
    lengths = batch.cu_seqlens.diff().tolist()
    total, labels = 0.0, 0
    with unpacked(module.adapted_model):
        rows = zip(batch.input_ids.split(lengths, 1), batch.labels.split(lengths, 1), strict=True)
        for ids, targets in rows:
            logits = module.adapted_model(input_ids=ids, use_cache=False).logits
            total += F.cross_entropy(logits[0, :-1], targets[0, 1:], reduction="sum").item()
            labels += int((targets[0, 1:] >= 0).sum())
    return total, labels


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[tuple[float, int]]]:
    """The exact loss and the labels of each micro-batch that trained, by optimizer step."""
    steps: dict[int, list[tuple[float, int]]] = {}
    original = LoRAModule.training_step

    def recorded(self: LoRAModule, batch: Batch, batch_idx: int) -> Tensor:
        steps.setdefault(self.trainer.global_step, []).append(exact_loss(self, batch))
        return original(self, batch, batch_idx)

    monkeypatch.setattr(LoRAModule, "training_step", recorded)
    return steps


def test_the_table_has_every_argument_of_the_trainer() -> None:
    assert ARGUMENTS.keys() == inspect.signature(L.Trainer.__init__).parameters.keys() - {"self"}


def test_every_callback_of_lightning_is_allowed_or_refused() -> None:
    names = {kind.__name__ for kind in REFUSED_CALLBACKS} | CALLBACKS
    derived = {"BackboneFinetuning", "EMAWeightAveraging"}  # refused with their base classes
    assert names | derived == set(lightning.pytorch.callbacks.__all__)


def test_every_argument_that_is_followed_is_in_a_run() -> None:
    assert {pair for arguments in TOGETHER for pair in arguments.items()} == FOLLOWED


@pytest.mark.parametrize(
    "arguments",
    [FREE_ARGUMENTS, *([part for pair in run.items() for part in pair] for run in TOGETHER)],
    ids=lambda pairs: "-".join(pairs[:4]),
)
def test_an_allowed_argument_keeps_losses_schedule_and_adapter(
    arguments: list[str], command: list[str], computed: dict[int, Any], tmp_path: Path
) -> None:
    pairs = zip(arguments[::2], arguments[1::2], strict=True)
    try:
        assert main([*command, *(f"--trainer.{name}={value}" for name, value in pairs)]) == 0
    finally:
        torch.use_deterministic_algorithms(False)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    exact = [sum(x for x, _ in parts) / sum(n for _, n in parts) for parts in computed.values()]
    assert [float(row["train/loss"]) for row in rows] == pytest.approx(exact, rel=1e-4)
    rates = [LR * lr_factor("linear", 0, len(exact), step) for step in range(len(exact))]
    assert [float(row["train/lr"]) for row in rows] == pytest.approx(rates)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(("name", "value", "text"), REFUSED)
def test_another_argument_is_refused_before_training(
    name: str,
    value: str,
    text: str,
    command: list[str],
    computed: dict[int, Any],
    capsys: pytest.CaptureFixture,
) -> None:
    assert main([*command, f"--trainer.{name}", value]) == 2
    assert text in capsys.readouterr().err
    assert not computed


def shorter_epochs(command: list[str], run: Path, *more: str) -> list[str]:
    return [*command, "--output_dir", str(run), "--trainer.limit_train_batches", "3", *more]


def test_shorter_epochs_resume_exactly(command: list[str], tmp_path: Path) -> None:
    """Two epochs of two steps; the run resumes after the first, third and second step."""
    every = ["--checkpoint.every_n_train_steps", "1", "--checkpoint.save_top_k", "-1"]
    assert main(shorter_epochs(command, tmp_path / "run", *every)) == 0
    whole = (tmp_path / "run" / "adapter" / "adapter_model.safetensors").read_bytes()
    for step in (1, 2, 3):
        resumed = tmp_path / f"resumed-{step}"
        start = str(tmp_path / "run" / "checkpoints" / f"step-{step}.ckpt")
        assert main(shorter_epochs(command, resumed, "--ckpt_path", start)) == 0
        assert (resumed / "adapter" / "adapter_model.safetensors").read_bytes() == whole


def test_shorter_epochs_resume_with_steps_of_another_size(
    command: list[str], computed: dict[int, Any], tmp_path: Path
) -> None:
    """A step of two of the three micro-batches, then one of one, then three of one."""
    every = ["--checkpoint.every_n_train_steps", "1", "--checkpoint.save_top_k", "-1"]
    assert main(shorter_epochs(command, tmp_path / "run", *every)) == 0
    computed.clear()
    start = ["--ckpt_path", str(tmp_path / "run" / "checkpoints" / "step-1.ckpt")]
    smaller = ["--trainer.accumulate_grad_batches", "1"]
    assert main(shorter_epochs(command, tmp_path / "resumed", *start, *smaller)) == 0
    assert [len(parts) for parts in computed.values()] == [1, 1, 1, 1]
    assert list(computed) == [1, 2, 3, 4]
    with (tmp_path / "resumed" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/loss"]]
    exact = [loss / labels for parts in computed.values() for loss, labels in parts]
    assert [float(row["train/loss"]) for row in rows][-4:] == pytest.approx(exact, rel=1e-4)
