"""Faults during a run: exit code, stderr and files of the real command.

Every command runs in its own process, which a test can kill; see ``tests/warm.py``.
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from command import Command, Fault, Result

from lit.fit import main
from lit.resume.resume_point import ResumePoint
from lit.run.folder import RunFolder

ROWS = [
    {"prompt": f"How warm must bed {i} be?", "response": f"Bed {i} must be {50 + i} degrees warm."}
    for i in range(20)
]
MODULE = "lit.train.module.LoRAModule"


class Canary:
    """Creates a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module")
def settings(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """3 epochs of 4 steps of 2 micro-batches; saves each step, validates every second step."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return [
        *("--model.base", str(tiny_folder), "--data.path", str(path)),
        *("--trainer.accelerator", "cpu", "--model.lr", "1e-2", "--model.warmup", "4"),
        *("--data.val_fraction", "0.2", "--data.batch_size", "2"),
        *("--trainer.max_epochs", "3", "--trainer.accumulate_grad_batches", "2"),
        *("--trainer.val_check_interval", "4", "--checkpoint.every_n_train_steps", "1"),
        *("--checkpoint.save_top_k", "3", "--model.lora.lora_dropout", "0.1"),
        *("--model.lora.r", "4"),
    ]


@pytest.fixture(scope="module")
def whole(command: Command, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run."""
    run = tmp_path_factory.mktemp("whole") / "run"
    ended = command.run([*settings, "--output_dir", str(run)])
    assert ended.code == 0, ended.error
    return run


def outcome(run: Path) -> dict[str, object]:
    """Return the results of a run, except its speed."""
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    with (run / "metrics.csv").open() as file:
        table = [{**row, "train/tokens_per_s": ""} for row in csv.DictReader(file)]
    return {
        "weights": last["state_dict"],
        "optimizer": last["optimizer_states"],
        "schedule": last["lr_schedulers"],
        "metrics": table,
        "adapter": (run / "adapter" / "adapter_model.safetensors").read_bytes(),
        "tokenizer": (run / "adapter" / "tokenizer.json").read_bytes(),
        "validation": (run / "validation.jsonl").read_bytes(),
        "files": sorted(path.name for path in run.iterdir()),
        "hidden": sorted(str(path.relative_to(run)) for path in run.rglob(".*")),
    }


def equal(a: object, b: object) -> bool:
    """Return whether two values are equal, bit for bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


def assert_same(run: Path, whole: Path) -> None:
    """Assert that a run has the results of an uninterrupted one."""
    ours, theirs = outcome(run), outcome(whole)
    assert ours["metrics"] == theirs["metrics"]
    for part in theirs:
        assert equal(ours[part], theirs[part]), part


def one_line(result: Result) -> bool:
    """Return whether stderr has one line with an error, and no traceback."""
    lines = [line for line in result.error.splitlines() if not line.startswith("Seed set")]
    return len(lines) == 1 and lines[0].startswith("error: ")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the uninterrupted run, which a test may change."""
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def unfinished(copy: Path, step: int) -> None:
    """Change a copy to what a kill after a step would leave."""
    checkpoints = copy / "checkpoints"
    shutil.copy(checkpoints / f"step-{step}.ckpt", checkpoints / "last.ckpt")
    (checkpoints / "manifest.json").unlink()
    (copy / "loss.png").unlink()


@pytest.mark.faults
def test_after_kill_9_at_20_random_moments_the_resumed_run_equals_an_uninterrupted_one(
    command: Command, settings: list[str], whole: Path, tmp_path: Path
) -> None:
    rng, killed, started = random.Random(0), 0, 0
    while killed < 20:
        run = tmp_path / f"run-{started}"
        started += 1
        last = run / "checkpoints" / "last.ckpt"
        code = -signal.SIGKILL
        while code and killed < 20:
            resume = ["--ckpt_path", "last"] if last.exists() else ["--overwrite", "true"]
            pid = command.start([*settings, "--output_dir", str(run), *resume])
            if killed % 3:
                command.wait_for_output(pid, "step ")
            time.sleep(rng.uniform(0, 0.5))
            os.kill(pid, signal.SIGKILL)
            ended = command.wait(pid)
            code = ended.code
            assert code in (0, -signal.SIGKILL), ended.error
            killed += code != 0
            if last.exists():
                assert ResumePoint.find(RunFolder(run), "last").path == last
        resume = ["--ckpt_path", "last"] if last.exists() else ["--overwrite", "true"]
        ended = command.run([*settings, "--output_dir", str(run), *resume])
        assert ended.code == 0, ended.error
        assert_same(run, whole)


KILLED = {
    "writing a checkpoint": Fault("lit.resume.checkpoint.torch.save", 9),
    "writing the manifest": Fault("lit.resume.manifest.write_text", 9),
    "renaming the tokenizer": Fault("lora.storage.files.os.replace", 22),
    "renaming last.ckpt": Fault("lora.storage.files.os.replace", 29),
    "writing the adapter": Fault("lora.storage.adapter.save_file", 4),
    "writing metrics.csv": Fault("lit.run.metrics.csv.DictWriter.writerow", 9),
}


@pytest.mark.parametrize("moment", KILLED)
def test_kill_9_during_a_save_keeps_the_old_file_and_temporary_files_are_removed(
    moment: str, command: Command, settings: list[str], whole: Path, tmp_path: Path
) -> None:
    run, elsewhere = tmp_path / "run", Path("/dev/shm")
    tmpdir = str(elsewhere if os.access(elsewhere, os.W_OK) else tmp_path)
    args = [*settings, "--output_dir", str(run)]
    ended = command.run(args, tmpdir=tmpdir, fault=KILLED[moment])
    assert ended.code == -signal.SIGKILL
    ended = command.run([*args, "--ckpt_path", "last"], tmpdir=tmpdir)
    assert ended.code == 0, ended.error
    assert_same(run, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("moment", ["after the first micro-batch", "in a validation"])
def test_a_signal_exits_with_its_code_and_the_resumed_run_equals_an_uninterrupted_one(
    moment: str,
    number: signal.Signals,
    code: int,
    command: Command,
    settings: list[str],
    whole: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    args = [*settings, "--output_dir", str(run), "--checkpoint.every_n_train_steps", "100"]
    hook = "validation_step" if moment == "in a validation" else "training_step"
    # The base takes one validation step, and an optimizer step two micro-batches.
    fault = Fault(f"{MODULE}.{hook}", 2 if hook == "validation_step" else 3, number.name)
    ended = command.run(args, fault=fault)
    assert ended.code == code, ended.error
    assert ended.error.count("Resume with the same command and --ckpt_path last") == 1
    ended = command.run([*settings, "--output_dir", str(run), "--ckpt_path", "last"])
    assert ended.code == 0, ended.error
    assert_same(run, whole)


def test_a_second_ctrl_c_exits_at_once_with_130_and_the_last_checkpoint_loads(
    command: Command, settings: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    args = [*settings, "--output_dir", str(run)]
    ended = command.run(args, fault=Fault(f"{MODULE}.training_step", 5, "SIGINT", times=2))
    assert ended.code == 130
    assert "stopped at once" in ended.error
    assert ResumePoint.find(RunFolder(run), "last").step == 2


KINDS = {
    "8-bit moments": ["--model.optimizer", "adamw_8bit"],
    "a 4-bit base": ["--model.quantize", "nf4"],
    "a number of steps": ["--trainer.max_epochs", "-1", "--trainer.max_steps", "7"],
    "logging every third step": ["--trainer.log_every_n_steps", "3"],
    "validation once per epoch": ["--trainer.val_check_interval", "1.0"],
    "validation every third step": [
        *("--trainer.val_check_interval", "null", "--data.val_every_n_steps", "3"),
    ],
    "early stopping": ["--early_stopping.patience", "1", "--early_stopping.min_delta", "0.02"],
    "no validation": ["--data.val_fraction", "0"],
}


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_equals_an_uninterrupted_one_after_stop_and_resume(
    kind: str, command: Command, settings: list[str], tmp_path: Path
) -> None:
    args = [*settings, *KINDS[kind], "--output_dir"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    ended = command.run([*args, str(whole)])
    assert ended.code == 0, ended.error
    # Stops after step 4, where a validation is due and an epoch ends.
    fault = Fault(f"{MODULE}.training_step", 7, "SIGTERM")
    assert command.run([*args, str(run)], fault=fault).code == 143
    ended = command.run([*args, str(run), "--ckpt_path", "last"])
    assert ended.code == 0, ended.error
    if kind == "no validation":
        (whole / "validation.jsonl").touch()
        (run / "validation.jsonl").touch()
    assert_same(run, whole)


@pytest.mark.parametrize("step", [10, 11, 12])
def test_a_moved_run_resumed_at_any_step_with_workers_equals_an_uninterrupted_one(
    step: int, command: Command, settings: list[str], whole: Path, copy: Path, tmp_path: Path
) -> None:
    moved = copy.rename(tmp_path / "moved")
    unfinished(moved, step)
    args = [*settings, "--output_dir", str(moved), "--ckpt_path", "last", "--data.num_workers", "2"]
    ended = command.run(args)
    assert ended.code == 0, ended.error
    assert not ended.error
    assert_same(moved, whole)


def test_resuming_a_finished_run_prints_already_complete_and_exits_with_0(
    command: Command, settings: list[str], copy: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    ended = command.run([*settings, "--output_dir", str(copy), "--ckpt_path", "last"])
    assert ended.code == 0
    assert "already complete: 12 optimizer steps" in ended.out
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("every", ["1", "100"])
def test_a_finished_run_with_more_epochs_equals_one_that_had_them_from_the_start(
    every: str, command: Command, settings: list[str], tmp_path: Path
) -> None:
    more = ["--model.scheduler", "constant", "--checkpoint.every_n_train_steps", every]
    args = [*settings, *more, "--output_dir"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert command.run([*args, str(whole)]).code == 0
    assert command.run([*args, str(run), "--trainer.max_epochs", "2"]).code == 0
    ended = command.run([*args, str(run), "--ckpt_path", "last"])
    assert ended.code == 0, ended.error
    assert "trainer.max_epochs is 3, was 2: using the new value" in ended.out
    assert_same(run, whole)


CHANGED = {
    "rank": (["--model.lora.r", "8"], "model.lora.r is 8, was 4"),
    "alpha": (["--model.lora.lora_alpha", "32"], "model.lora.lora_alpha is 32"),
    "targets": (["--model.lora.target_modules", "[q_proj]"], "model.lora.target_modules is"),
    "dropout": (["--model.lora.lora_dropout", "0.2"], "model.lora.lora_dropout is 0.2, was 0.1"),
    "base": (["--model.base", "other"], "model.base is"),
    "optimizer": (["--model.optimizer", "sgd"], 'model.optimizer is "sgd", was "adamw"'),
    "batch size": (["--data.batch_size", "1"], "data.batch_size is 1, was 2"),
    "seed": (["--seed_everything", "1"], "seed_everything is 1, was 42"),
    "split": (["--data.val_fraction", "0.3"], "data.val_fraction is 0.3, was 0.2"),
    "length": (["--data.max_length", "64"], "data.max_length is 64, was 512"),
    "precision": (["--trainer.precision", "bf16-mixed"], "trainer.precision is"),
}


@pytest.mark.parametrize("key", CHANGED)
def test_resuming_with_a_fixed_setting_changed_exits_with_2_and_prints_both_values(
    key: str, settings: list[str], copy: Path, capsys: pytest.CaptureFixture
) -> None:
    changed, message = CHANGED[key]
    assert main([*settings, *changed, "--output_dir", str(copy), "--ckpt_path", "last"]) == 2
    assert message in capsys.readouterr().err


def test_resuming_with_other_rows_exits_with_2(
    settings: list[str], copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    unfinished(copy, 10)
    rows = Path(settings[settings.index("--data.path") + 1])
    args = [*settings, "--output_dir", str(copy), "--ckpt_path", "last", "--data.path"]
    other = tmp_path / "other.jsonl"
    other.write_text(rows.read_text("utf-8").replace("degrees", "kelvin"), "utf-8")
    assert main([*args, str(other)]) == 2
    assert "data.path (rows) is" in capsys.readouterr().err


def test_resuming_with_another_learning_rate_uses_the_checkpoints_and_prints_it(
    command: Command, settings: list[str], whole: Path, copy: Path
) -> None:
    unfinished(copy, 10)
    args = [*settings, "--output_dir", str(copy), "--ckpt_path", "last", "--model.lr", "1e-3"]
    ended = command.run(args)
    assert ended.code == 0, ended.error
    assert "model.lr is 0.001, was 0.01: using the checkpoint's value" in ended.out
    assert_same(copy, whole)


def test_a_second_run_in_a_folder_exits_with_2_and_a_killed_run_releases_its_lock(
    command: Command, settings: list[str], whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = command.start([*settings, "--output_dir", str(run), "--data.num_workers", "2"])
    command.wait_for_output(first, "step 3/")
    os.kill(first, signal.SIGSTOP)
    for more in ([], ["--ckpt_path", "last"], ["--overwrite", "true"]):
        second = command.run([*settings, "--output_dir", str(run), *more])
        assert second.code == 2
        assert one_line(second), second.error
        assert "another run is writing to" in second.error
    os.kill(first, signal.SIGKILL)
    command.wait(first)
    ended = command.run([*settings, "--output_dir", str(run), "--ckpt_path", "last"])
    assert ended.code == 0, ended.error
    assert_same(run, whole)


def truncate(share: float):
    def change(path: Path) -> None:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

    return change


def flip(share: float):
    def change(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        whole[int(len(whole) * share)] ^= 1
        path.write_bytes(whole)

    return change


def foreign(path: Path) -> None:
    torch.save({"state_dict": {}, "payload": Canary(path.parent / "it ran")}, path)


DAMAGED = {
    **{f"truncated to {share:.0%}": truncate(share) for share in (0, 0.1, 0.5, 0.99)},
    **{f"a flipped bit at {share:.0%}": flip(share) for share in (0.01, 0.3, 0.6, 0.95)},
    "a foreign pickle": foreign,
    "no file": Path.unlink,
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    fault: str, copy: Path, capsys: pytest.CaptureFixture
) -> None:
    last = copy / "checkpoints" / "last.ckpt"
    DAMAGED[fault](last)
    (copy / "checkpoints" / "step-12.ckpt").unlink()
    point = ResumePoint.find(RunFolder(copy), "last")
    assert (point.path, point.step) == (copy / "checkpoints" / "step-11.ckpt", 11)
    out = capsys.readouterr().out
    assert str(last) in out
    assert "step-11.ckpt" in out
    assert not (last.parent / "it ran").exists()


def test_a_run_with_damaged_newest_checkpoints_equals_an_uninterrupted_one(
    command: Command, settings: list[str], whole: Path, copy: Path
) -> None:
    for name in ("last.ckpt", "step-12.ckpt"):
        flip(0.5)(copy / "checkpoints" / name)
    ended = command.run([*settings, "--output_dir", str(copy), "--ckpt_path", "last"])
    assert ended.code == 0, ended.error
    assert "Resuming from the one before" in ended.out
    assert_same(copy, whole)


def test_a_file_size_limit_exits_with_1_before_training_with_one_line(
    command: Command, settings: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    more = ["--model.lora.r", "32", "--model.lora.target_modules", "all-linear"]
    ended = command.run([*settings, *more, "--output_dir", str(run)], RLIMIT_FSIZE=100_000)
    assert ended.code == 1, ended.error
    assert one_line(ended), ended.error
    assert "no room for a checkpoint" in ended.error
    assert "step 1/" not in ended.out


def test_a_full_disk_exits_with_1_with_one_line_and_keeps_the_checkpoint_before(
    command: Command, settings: list[str], whole: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("cannot mount a file system here")
    try:
        args = [*settings, "--output_dir", str(disk / "run"), "--checkpoint.save_top_k", "-1"]
        ended = command.run(args)
        assert ended.code == 1, ended.out
        assert one_line(ended), ended.error
        assert "No space left" in ended.error
        assert ResumePoint.find(RunFolder(disk / "run"), "last").step > 0
        kept = Path(shutil.copytree(disk / "run", tmp_path / "kept"))
        run = ["--output_dir", str(kept), "--ckpt_path", "last"]
        ended = command.run([*settings, *run])
        assert ended.code == 0, ended.error
        assert_same(kept, whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_read_only_folder_exits_with_1_before_training_and_is_unchanged(
    resume: bool, command: Command, settings: list[str], copy: Path
) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    copy.chmod(0o555)
    run = ["--output_dir", str(copy if resume else copy / "new")]
    more = ["--ckpt_path", "last"] if resume else []
    ended = command.run([*settings, *run, *more], plain_user=True)
    copy.chmod(0o755)
    assert ended.code == 1, ended.error
    assert one_line(ended), ended.error
    assert "Permission denied" in ended.error
    assert "data " not in ended.out
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_a_nan_gradient_exits_with_1_or_is_skipped_and_counted(
    mode: str, command: Command, settings: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    args = [*settings, "--output_dir", str(run), "--model.on_nonfinite", mode]
    # 13: after 9 micro-batches and 3 validation steps, the second micro-batch of step 5.
    ended = command.run(args, fault=Fault("lit.train.module.summed_loss", 13, "nan"))
    if mode == "stop":
        assert ended.code == 1
        assert one_line(ended), ended.error
        for part in ("step 5: loss nan", "gradient norm nan", "lr 0.01", "rows.jsonl:"):
            assert part in ended.error
        assert ResumePoint.find(RunFolder(run), "last").step == 4
    else:
        assert ended.code == 0, ended.error
        assert "skipped, 1 so far" in ended.out
        assert "skipped 1 of 12 steps: not finite" in ended.out
    point = ResumePoint.find(RunFolder(run), "last")
    assert all(
        tensor.isfinite().all()
        for tensor in torch.load(point.path, weights_only=True)["state_dict"].values()
    )


def test_too_little_memory_exits_with_1_in_the_first_step_and_names_what_to_lower(
    command: Command, settings: list[str], tmp_path: Path
) -> None:
    rows = [{"prompt": "Why?", "response": "So. " * 900} for i in range(8)]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    more = ["--data.path", str(path), "--data.max_length", "4000", "--data.val_fraction", "0"]
    more += ["--data.batch_size", "8", "--model.warmup", "0", "--trainer.val_check_interval", "1.0"]
    args = [*settings, *more, "--output_dir", str(tmp_path / "run")]
    ended = command.run(args, fault=Fault(f"{MODULE}.training_step", 1, "memory"))
    assert ended.code == 1
    assert one_line(ended), ended.error
    assert "out of memory. Lower data.batch_size" in ended.error
    assert "step 1/" not in ended.out
