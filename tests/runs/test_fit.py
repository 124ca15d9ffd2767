"""python -m lit.fit, from the command line to the run's folder."""

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import datasets
import pytest
import torch
import yaml
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from lit.fast_layers import library
from lit.fast_layers.product_times import ONEDNN, TORCH
from lit.fit import main
from lit.run.metrics_file import read_losses

ROWS = [
    {"prompt": f"How warm must bed {i} be?", "response": f"Bed {i} must be {50 + i} degrees warm."}
    for i in range(20)
]


class Finished(NamedTuple):
    """A finished run that no test changes, its command line, and what it printed."""

    folder: Path
    command: list[str]
    printed: str


def command_line(base: Path, folder: Path) -> list[str]:
    """Return a run of 2 epochs of 8 optimizer steps of 2 of twenty rows, in folder/run."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return [
        *("--model.base", str(base), "--data.path", str(path)),
        *("--output_dir", str(folder / "run"), "--trainer.accelerator", "cpu"),
        *("--data.val_fraction", "0.2", "--data.batch_size", "2", "--model.lr", "1e-2"),
        *("--trainer.max_epochs", "2", "--model.lora.lora_dropout", "0.1"),
    ]


@pytest.fixture(scope="module")
def finished(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run with a checkpoint of each step."""
    folder, printed = tmp_path_factory.mktemp("finished"), io.StringIO()
    command = command_line(tiny_folder, folder)
    every = ["--checkpoint.every_n_train_steps", "1", "--checkpoint.save_top_k", "-1"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        assert main([*command, *every]) == 0
    return Finished(folder / "run", command, printed.getvalue())


@pytest.fixture
def command(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """The command line of a run in tmp_path/run."""
    return command_line(tiny_folder, tmp_path)


def adapter_of(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's last checkpoint."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["state_dict"]


def test_a_run_leaves_the_folder_that_the_design_names(finished: Finished) -> None:
    run, said = finished.folder, finished.printed
    names = {path.name for path in run.iterdir()}
    assert names == {
        *("config.yaml", "lit-lora.json", "adapter", "checkpoints", "tensorboard"),
        *("metrics.csv", "loss.png", "validation.jsonl"),
    }
    assert {path.name for path in (run / "adapter").iterdir()} == {
        *("adapter_model.safetensors", "adapter_config.json", "README.md"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"),
    }
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    val = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    train = [float(row["train/loss"]) for row in rows if row["train/loss"]]
    assert len(train) == 16
    assert len(val) == 3
    assert min(val[1:]) < val[0]
    assert "20 rows read, 20 used" in said
    assert "16 optimizer steps" in said
    assert f"{val[0]:.4f} -> {min(val[1:]):.4f}" in said
    assert "1,700 tokens" in said
    assert f"next   python -m lit.compare --adapter {run / 'adapter'}" in said
    assert f"{val[0]:.4f}" in (run / "adapter" / "README.md").read_text()


def test_tensorboard_shows_the_numbers_and_answers_of_a_run(finished: Finished) -> None:
    board = EventAccumulator(str(finished.folder / "tensorboard")).Reload()
    with (finished.folder / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    for tag in (
        *("train/loss", "train/lr", "train/grad_norm", "train/tokens_per_s"),
        *("val/loss", "val/perplexity"),
    ):
        shown = [(str(e.step), f"{e.value:.5g}") for e in board.Scalars(tag)]
        assert shown == [(row["step"], f"{float(row[tag]):.5g}") for row in table if row[tag]]
    texts = board.Tensors("answer 1/text_summary")
    assert [text.step for text in texts] == [0, 8, 16]
    assert "How warm must bed" in texts[0].tensor_proto.string_val[0].decode()


def test_tensorboard_compares_the_settings_and_the_losses_of_runs(finished: Finished) -> None:
    reader = EventAccumulator(str(finished.folder / "tensorboard"))
    reader.Reload()
    data = {
        name: plugin_data_pb2.HParamsPluginData.FromString(content)
        for name, content in reader.PluginTagToContent("hparams").items()
    }
    shown = data["_hparams_/session_start_info"].session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in shown.items()}
    config = yaml.safe_load((finished.folder / "config.yaml").read_text("utf-8"))
    assert values["model.base"] == config["model"]["base"]
    assert (values["model.lora.r"], values["model.lora.lora_alpha"]) == (8, 16)
    assert (values["model.lr"], values["data.batch_size"]) == (1e-2, 2)
    assert (values["trainer.max_epochs"], values["model.quantize"]) == (2, "none")
    targets = config["model"]["lora"]["target_modules"]
    assert values["model.lora.target_modules"] == (
        targets if isinstance(targets, str) else ", ".join(targets)
    )
    metrics = {info.name.tag for info in data["_hparams_/experiment"].experiment.metric_infos}
    assert metrics == {"final/best_val_loss", "final/last_val_loss", "final/last_train_loss"}
    _, validations = read_losses(finished.folder / "metrics.csv")
    for name, loss in (
        ("best", min(loss for step, loss in validations if step)),
        ("last", validations[-1][1]),
    ):
        (logged,) = reader.Scalars(f"final/{name}_val_loss")
        assert (logged.step, logged.value) == (16, pytest.approx(loss, rel=1e-6))


def test_no_file_of_a_run_holds_a_base_weight(finished: Finished) -> None:
    run = finished.folder
    with safe_open(run / "adapter" / "adapter_model.safetensors", "pt") as file:
        assert all(".lora_A." in key or ".lora_B." in key for key in file.keys())  # noqa: SIM118
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(key.endswith(("lora_A", "lora_B")) for key in checkpoint["state_dict"])
    assert checkpoint["optimizer_states"][0]["state"]


def test_held_out_rows_are_written_with_their_source_and_never_trained_on(
    finished: Finished,
) -> None:
    lines = (finished.folder / "validation.jsonl").read_text("utf-8").splitlines()
    held = [json.loads(line) for line in lines]
    assert len(held) == 4
    for row in held:
        number = int(row["source"].rpartition(":")[2])
        assert row["messages"][0]["content"] == ROWS[number - 1]["prompt"]


def test_the_saved_config_alone_repeats_the_run_bit_for_bit(
    finished: Finished, tmp_path: Path
) -> None:
    config = str(finished.folder / "config.yaml")
    assert main(["--config", config, "--output_dir", str(tmp_path / "again")]) == 0
    first, again = adapter_of(finished.folder), adapter_of(tmp_path / "again")
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("steps", [3, 8, 11])
def test_a_resumed_run_equals_one_that_never_stopped(
    finished: Finished, tmp_path: Path, steps: int, capsys: pytest.CaptureFixture
) -> None:
    """In mid-epoch, at the epoch's edge, and in the second epoch."""
    middle = finished.folder / "checkpoints" / f"step-{steps}.ckpt"
    resumed = [*finished.command, "--output_dir", str(tmp_path / "resumed")]
    assert main([*resumed, "--ckpt_path", str(middle)]) == 0
    whole, after = adapter_of(finished.folder), adapter_of(tmp_path / "resumed")
    assert all(torch.equal(whole[name], after[name]) for name in whole)
    done = f"{16 - steps} optimizer steps since the resume at step {steps} (16 in the whole run), "
    assert f"run    {done}" in capsys.readouterr().out
    assert "run    16 optimizer steps, " in finished.printed


def test_a_folder_with_a_run_is_not_overwritten_unless_asked(
    finished: Finished, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    before = adapter_of(tmp_path / "run")
    assert main([*command, "--seed_everything", "7"]) == 2
    said = capsys.readouterr().err
    assert "--ckpt_path last" in said
    assert "--overwrite" in said
    assert all(torch.equal(before[k], v) for k, v in adapter_of(tmp_path / "run").items())
    (tmp_path / "run" / "mine.txt").write_text("keep")
    assert main([*command, "--seed_everything", "7", "--overwrite", "true"]) == 0
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"
    assert any(not torch.equal(before[k], v) for k, v in adapter_of(tmp_path / "run").items())


def test_without_validation_rows_the_last_adapter_is_kept(
    command: list[str], tmp_path: Path
) -> None:
    assert main([*command, "--data.val_fraction", "0"]) == 0
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").exists()
    assert not (tmp_path / "run" / "validation.jsonl").exists()


# 32-true is what the other runs choose by themselves.
@pytest.mark.parametrize("precision", ["bf16-frozen", "bf16-mixed", "bf16-true"])
def test_every_precision_of_a_cpu_trains_and_resumes_bit_for_bit(
    precision: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    command = [*command, "--trainer.precision", precision]
    every = ["--checkpoint.every_n_train_steps", "5", "--checkpoint.save_top_k", "-1"]
    assert main([*command, *every]) == 0
    whole = adapter_of(tmp_path / "run")
    assert all(tensor.dtype == torch.float32 for tensor in whole.values())
    with (tmp_path / "run" / "metrics.csv").open() as file:
        val = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert val[-1] < val[0]
    middle = tmp_path / "run" / "checkpoints" / "step-5.ckpt"
    resumed = [*command, "--output_dir", str(tmp_path / "resumed"), "--ckpt_path", str(middle)]
    assert main(resumed) == 0
    after = adapter_of(tmp_path / "resumed")
    assert all(torch.equal(whole[name], after[name]) for name in whole)


def test_a_resumed_run_computes_with_the_library_of_its_checkpoint(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch
) -> None:
    every = ["--checkpoint.every_n_train_steps", "5", "--checkpoint.save_top_k", "-1"]
    fast, slow = {TORCH: 2.0, ONEDNN: 1.0}, {TORCH: 1.0, ONEDNN: 2.0}
    monkeypatch.setattr(library, "are_large", lambda shapes: True)
    monkeypatch.setattr(library, "product_times", lambda shapes: fast)
    assert main([*command, *every]) == 0
    assert "computed by oneDNN (oneDNN is 2.00 times as fast" in capsys.readouterr().out
    monkeypatch.setattr(library, "product_times", lambda shapes: slow)
    middle = tmp_path / "run" / "checkpoints" / "step-5.ckpt"
    resumed = [*command, "--output_dir", str(tmp_path / "resumed"), "--ckpt_path", str(middle)]
    assert main(resumed) == 0
    assert "computed by oneDNN (as the checkpoint's run)" in capsys.readouterr().out
    whole, after = adapter_of(tmp_path / "run"), adapter_of(tmp_path / "resumed")
    assert all(torch.equal(whole[name], after[name]) for name in whole)


WRONG = {
    "a missing data file": (["--data.path", "none.jsonl"], "none.jsonl does not exist"),
    "a hub name without a network": (["--model.base", "no/such"], "hub cannot be reached"),
    "a missing folder": (["--model.base", "./no-such"], "no folder ./no-such"),
    "a wrong key": (["--model.lora.rank", "8"], "did you mean model.lora.r?"),
    "a wrong group": (["--trainer.lr", "1"], "did you mean model.lr?"),
    "a wrong type": (["--model.lora.r", "many"], "model.lora.r is many"),
    "a rank below 1": (["--model.lora.r", "-1"], "lora.r is -1"),
    "a wrong choice": (["--model.optimizer", "adam"], "choose adamw"),
    "a wrong layer": (["--model.lora.target_modules", "[query]"], "q_proj"),
    "a wrong template": (["--data.template", "chatml"], "choose auto, chat, plain or a Jinja file"),
    "a missing checkpoint": (["--ckpt_path", "last"], "there is no checkpoint"),
    "too small a budget": (["--data.max_tokens", "8"], "data.max_tokens is 8"),
    "no rows that fit": (["--data.max_length", "8"], "are too long for data.max_length 8"),
    "a batch of none": (["--data.batch_size", "0"], "data.batch_size is 0"),
    "all held out": (["--data.val_fraction", "0.99"], "too few to hold out"),
    "too rare a validation": (
        ["--trainer.val_check_interval", "9"],
        "an epoch has 8 micro-batches",
    ),
    "fp16 on a CPU": (["--trainer.precision", "16-mixed"], "needs a GPU"),
    "no such device": (["--trainer.accelerator", "cuda"], "trainer.accelerator is cuda, and torch"),
    "double precision": (["--trainer.precision", "64-true"], "choose auto, 32-true"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_setting_ends_with_2_and_says_what_is_wrong(
    fault: str, command: list[str], capsys: pytest.CaptureFixture
) -> None:
    changed, said = WRONG[fault]
    assert main([*command, *changed]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert len(captured.err.strip().splitlines()) <= 3


BAD_YAML = {
    "an unknown key": ("model:\n  base: m\n  lora:\n    rank: 8\n", ":4: there is no setting"),
    "a wrong group": ("modle:\n  base: m\n", ":1: there is no setting modle; did you mean model?"),
    "a key there twice": ("model:\n  base: m\n  base: n\n", ":3: model.base is set twice"),
    "no YAML": ("model: [\n", ":2: not YAML"),
    "no mapping": ("- model\n", "must hold settings"),
    "nothing": ("", "must hold settings"),
    "CP1251": ("model:\n  base: модель\n".encode("cp1251"), "is not UTF-8"),
}


@pytest.mark.parametrize("fault", BAD_YAML)
def test_a_wrong_config_file_is_named_with_its_line(
    fault: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    text, said = BAD_YAML[fault]
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["--config", str(path), *command]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert said in error


def test_a_config_with_a_byte_order_mark_is_read(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_text("data:\n  max_length: 8\n", "utf-8-sig")
    assert main(["--config", str(path), *command]) == 2  # read: no row fits into 8 tokens


def test_ctrl_c_ends_the_real_command_with_130_and_a_checkpoint(
    command: list[str], tmp_path: Path
) -> None:
    # Long enough that the signal comes before the end.
    process = subprocess.Popen(
        [sys.executable, "-m", "lit.fit", *command, "--trainer.max_epochs", "6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("step 2/"))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "--ckpt_path last" in error
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert 2 <= last["global_step"] < 48
    with (tmp_path / "run" / "metrics.csv").open() as file:
        steps = [row["step"] for row in csv.DictReader(file) if row["train/loss"]]
    assert steps == [str(step) for step in range(last["global_step"])]


def test_the_saved_config_is_whole(finished: Finished) -> None:
    config = yaml.safe_load((finished.folder / "config.yaml").read_text())
    assert config["model"]["lora"]["r"] == 8
    assert config["overwrite"] is False
    assert config["data"]["template"] == "auto"


def test_settings_are_read_without_what_only_data_needs() -> None:
    code = "import lit.fit, sys; print('datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
