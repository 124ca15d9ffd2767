"""Runs of several processes, connected by gloo over the loopback interface."""

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Command, Fault, Result, slurm, torchrun

from data.planning.loader import MicroBatches
from data.planning.plan import micro_batches
from data.types import Batch
from lit.fit import main
from lit.resume.resume_point import ResumePoint
from lit.run.folder import RunFolder

MODULE = "lit.train.module.LoRAModule"
TOLERANCE = 5e-5
"""Of weights. Adam makes a whole step of 1e-2 of a gradient that is little more than rounding, so
the order in which a CPU adds decides more than its last bits: 1.3e-5 were seen.
"""
rng = random.Random(0)
ROWS = [
    {
        "prompt": f"How warm must bed {i} be?",
        "response": " and ".join(str(rng.randint(40, 99)) for _ in range(1 + i % 7)) + ".",
    }
    for i in range(46)
]
"""37 of them train, in 19 micro-batches: 18 of two rows and one of a single row."""
DOCUMENTS = [
    {
        "prompt": f"Printer {n} stands under the window and prints parts of PLA. Where is {part}?",
        "response": f"Above the {part} of printer {n}.",
    }
    for n in range(5)
    for part in ("the bed", "the nozzle", "the plate", "the fan")
]
"""Rows of which four share a text; 16 of them train, in 8 micro-batches of two rows."""


@pytest.fixture(scope="module")
def settings(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """3 epochs of 3 steps of 6 micro-batches and a last, validated step of one micro-batch."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return [
        *("--model.base", str(tiny_folder), "--data.path", str(path)),
        *("--trainer.accelerator", "cpu", "--model.lr", "1e-2", "--model.warmup", "4"),
        *("--data.val_fraction", "0.2", "--data.batch_size", "2", "--trainer.max_epochs", "3"),
        *("--checkpoint.every_n_train_steps", "1", "--checkpoint.save_top_k", "-1"),
        *(
            "--model.lora.lora_dropout",
            "0.1",
            "--model.lora.r",
            "4",
            "--data.val_every_n_steps",
            "4",
        ),
    ]


def split(ranks: int, micro_batches: int = 6) -> list[str]:
    """Return settings that split the micro-batches of an optimizer step over ranks."""
    strategy = ["--trainer.strategy", "ddp"] if ranks > 1 else []
    each = str(micro_batches // ranks)
    return ["--trainer.devices", str(ranks), "--trainer.accumulate_grad_batches", each, *strategy]


def assert_success(ended: list[Result]) -> None:
    """Assert that all ranks succeeded, and only the first one printed."""
    for rank, result in enumerate(ended):
        assert result.code == 0, (rank, result.error)
        assert not result.error
        assert bool(result.out) == (rank == 0), result.out


@pytest.fixture(scope="module")
def runs(
    command: Command, settings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """The folders of the same run with one, two and three processes."""
    folder = tmp_path_factory.mktemp("runs")
    for ranks in (1, 2, 3):
        args = [*settings, *split(ranks), "--output_dir", str(folder / str(ranks))]
        started = (
            command.start_ranks(args, ranks) if ranks > 1 else [command.start(args, name="-0")]
        )
        assert_success(command.wait_all(started))
    return {ranks: folder / str(ranks) for ranks in (1, 2, 3)}


def checkpoint(run: Path, step: int) -> dict:
    return torch.load(run / "checkpoints" / f"step-{step}.ckpt", weights_only=True)


def table(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [{k: v for k, v in row.items() if k != "train/tokens_per_s"} for row in rows]


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_processes_train_the_same_adapter_as_one(ranks: int, runs: dict[int, Path]) -> None:
    for step in range(1, 13):
        ours, theirs = (checkpoint(runs[n], step) for n in (ranks, 1))
        torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=TOLERANCE)
        for a, b in zip(ours["optimizer_states"], theirs["optimizer_states"], strict=True):
            torch.testing.assert_close(a["state"], b["state"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_processes_log_the_same_numbers_as_one(ranks: int, runs: dict[int, Path]) -> None:
    ours, theirs = table(runs[ranks]), table(runs[1])
    assert len(ours) == len(theirs) == 16
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-5)
        if "val/loss" in b:
            assert a["val/loss"] == pytest.approx(b["val/loss"], rel=1e-6)


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_processes_write_the_same_files_as_one(ranks: int, runs: dict[int, Path]) -> None:
    names = [sorted(str(p.relative_to(runs[n])) for p in runs[n].rglob("*")) for n in (ranks, 1)]
    ours, theirs = ([name for name in listed if "tfevents" not in name] for listed in names)
    assert ours == theirs
    assert len(names[0]) == len(names[1])


def assert_same(run: Path, whole: Path, step: int = 12) -> None:
    """Assert that two runs have the same results, bit for bit."""
    ours, theirs = checkpoint(run, step), checkpoint(whole, step)
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=0)
    for a, b in zip(ours["optimizer_states"], theirs["optimizer_states"], strict=True):
        torch.testing.assert_close(a["state"], b["state"], rtol=0, atol=0)
    assert table(run) == table(whole)
    adapters = [path / "adapter" / "adapter_model.safetensors" for path in (run, whole)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


ENDS = {
    "SIGTERM to the second": ({1: Fault(f"{MODULE}.training_step", 21, "SIGTERM")}, 143),
    "Ctrl-C in a validation": ({0: Fault(f"{MODULE}.validation_step", 2, "SIGINT")}, 130),
    "kill -9 of the second": ({1: Fault(f"{MODULE}.training_step", 21)}, 1),
    "kill -9 of the first": ({0: Fault(f"{MODULE}.training_step", 21)}, 1),
}
"""The fault of one of two ranks, and the exit code of the ranks that are not killed."""


@pytest.mark.parametrize("end", ENDS)
def test_all_ranks_end_when_one_ends_and_the_resumed_run_equals_an_uninterrupted_one(
    end: str, command: Command, settings: list[str], runs: dict[int, Path], tmp_path: Path
) -> None:
    faults, code = ENDS[end]
    args = [*settings, *split(2), "--output_dir", str(tmp_path / "run")]
    start = time.monotonic()
    ended = command.wait_all(command.start_ranks(args, 2, faults=faults))
    assert time.monotonic() - start < 60
    killed = {rank for rank, fault in faults.items() if fault.effect == "SIGKILL"}
    assert [result.code for result in ended] == [-9 if n in killed else code for n in range(2)]
    errors = "".join(result.error for result in ended)
    assert len(errors.splitlines()) == 1, errors
    assert "resume with the same command and --ckpt_path last" in errors.replace("Resume", "resume")
    for rank in killed:
        assert f"rank {rank} is lost" in errors
    assert_success(command.wait_all(command.start_ranks([*args, "--ckpt_path", "last"], 2)))
    assert_same(tmp_path / "run", runs[2])


def unfinished(run: Path, step: int, copy: Path) -> Path:
    """Copy a run, as a kill after a step would leave it."""
    shutil.copytree(run, copy)
    checkpoints = copy / "checkpoints"
    shutil.copy(checkpoints / f"step-{step}.ckpt", checkpoints / "last.ckpt")
    for later in checkpoints.glob("step-*.ckpt"):
        if int(later.stem.removeprefix("step-")) > step:
            later.unlink()
    (checkpoints / "manifest.json").unlink()
    (copy / "loss.png").unlink()
    return copy


@pytest.fixture(scope="module")
def on_documents(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """2 epochs of 4 steps of 2 micro-batches, of rows that share their text."""
    path = tmp_path_factory.mktemp("documents") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in DOCUMENTS), "utf-8")
    grouped = ["--data.group_by_prefix", "true", "--trainer.max_epochs", "2"]
    return [*settings, "--data.path", str(path), *grouped]


@pytest.fixture(scope="module")
def alone(
    command: Command, on_documents: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of this run with one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    ended = command.run([*on_documents, *split(1, 2), "--output_dir", str(folder)])
    assert ended.code == 0, ended.error
    assert "beginnings that rows share save" in ended.out
    return folder


def test_two_processes_whose_rows_share_beginnings_train_the_same_adapter_as_one(
    command: Command, on_documents: list[str], alone: Path, tmp_path: Path
) -> None:
    args = [*on_documents, *split(2, 2), "--output_dir", str(tmp_path / "run")]
    assert_success(command.wait_all(command.start_ranks(args, 2)))
    for step in range(1, 9):
        ours, theirs = (checkpoint(path, step) for path in (tmp_path / "run", alone))
        torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=TOLERANCE)
    for a, b in zip(table(tmp_path / "run"), table(alone), strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_a_killed_run_whose_rows_share_beginnings_resumes_inside_its_epoch_bit_for_bit(
    command: Command, on_documents: list[str], alone: Path, tmp_path: Path
) -> None:
    args = [*on_documents, *split(1, 2), "--output_dir", str(tmp_path / "run")]
    # In the middle of the second epoch, which has groups of its own.
    assert command.run(args, fault=Fault(f"{MODULE}.training_step", 12)).code == -9
    assert command.run([*args, "--ckpt_path", "last"]).code == 0
    assert_same(tmp_path / "run", alone, 8)


@pytest.mark.parametrize(("step", "before", "after"), [(6, 2, 3), (8, 3, 1)])
def test_a_run_resumed_with_another_number_of_processes_equals_an_uninterrupted_one(
    step: int,
    before: int,
    after: int,
    command: Command,
    settings: list[str],
    runs: dict[int, Path],
    tmp_path: Path,
) -> None:
    run = unfinished(runs[before], step, tmp_path / "run")
    args = [*settings, *split(after), "--output_dir", str(run), "--ckpt_path", "last"]
    ended = command.wait_all(
        command.start_ranks(args, after) if after > 1 else [command.start(args, name="-0")]
    )
    assert_success(ended)
    assert f'trainer.devices is "{after}", was "{before}": using the new value' in ended[0].out
    for later in range(step + 1, 13):
        ours, theirs = (checkpoint(path, later)["state_dict"] for path in (run, runs[1]))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)
    for a, b in zip(table(run), table(runs[1]), strict=True):
        assert a == pytest.approx(b, rel=1e-5)


@pytest.mark.parametrize(("step", "done", "per_step"), [(6, 12, 4), (7, 18, 30), (8, 19, 1)])
def test_a_run_resumed_with_more_or_fewer_rows_per_step_continues_at_the_next_row(
    step: int,
    done: int,
    per_step: int,
    settings: list[str],
    runs: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[int, list[np.ndarray]] = {}

    def recorded(batches: MicroBatches, micro_step: int) -> Batch:
        if len(batches.rows) == 37:  # the training rows
            seen.setdefault(batches.epoch, []).append(batches.plan.rows(0, micro_step))
        return original(batches, micro_step)

    run = unfinished(runs[2], step, tmp_path / "run")
    args = [*settings, *split(1, per_step), "--output_dir", str(run), "--ckpt_path", "last"]
    original = MicroBatches.__getitem__
    monkeypatch.setattr(MicroBatches, "__getitem__", recorded)
    assert main([*args, "--checkpoint.every_n_train_steps", "100"]) == 0
    left = Counter({1: 19 - done, 2: 19})
    assert {epoch: len(groups) for epoch, groups in seen.items()} == +left
    for epoch, groups in seen.items():
        rows, starts = micro_batches_of(epoch)
        first = 0 if epoch > 1 else starts[done]
        assert sorted(np.concatenate(groups)) == sorted(rows[first:])
    steps = step + sum(-(-n // per_step) for n in left.values())
    assert ResumePoint.find(RunFolder(run), "last").step == steps


def micro_batches_of(epoch: int) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.ones(37, dtype=int)
    return micro_batches(lengths, batch_size=2, seed=42, epoch=epoch)


WRONG = {
    "no such file": ["--data.path", "nowhere.jsonl"],
    "no such setting": ["--model.lorra", "1"],
    "another number of processes": ["--trainer.devices", "3"],
    "one process each": ["--trainer.devices", "1", "--trainer.strategy", "auto"],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_error_of_all_ranks_is_printed_once_and_all_exit_with_2(
    wrong: str, command: Command, settings: list[str], tmp_path: Path
) -> None:
    args = [*settings, *split(2), *WRONG[wrong], "--output_dir", str(tmp_path / "run")]
    ended = command.wait_all(
        command.start_ranks(args, 2, slurm if "another" in wrong else torchrun), 40
    )
    assert [result.code for result in ended] == [2, 2]
    assert ended[0].error.startswith("error: ")
    assert not ended[1].error


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_rank_is_printed_by_it_and_all_exit_with_its_code(
    rank: int, command: Command, settings: list[str], tmp_path: Path
) -> None:
    args = [*settings, *split(2), "--output_dir", str(tmp_path / "run")]
    more = {rank: ["--data.path", "nowhere.jsonl"]}
    ended = command.wait_all(command.start_ranks(args, 2, slurm, more=more), 40)
    assert [result.code for result in ended] == [2, 2]
    assert ended[rank].error.startswith("error (rank 1): " if rank else "error: ")
    assert not ended[1 - rank].error


def test_ranks_that_read_different_rows_exit_with_2(
    command: Command, settings: list[str], tmp_path: Path
) -> None:
    args = [*settings, *split(2), "--output_dir", str(tmp_path / "run")]
    rows = Path(settings[settings.index("--data.path") + 1])
    other = tmp_path / "rows.jsonl"
    other.write_text(rows.read_text("utf-8").replace("warm", "hot"), "utf-8")
    more = {1: ["--data.path", str(other)]}
    ended = command.wait_all(command.start_ranks(args, 2, more=more), 40)
    assert [result.code for result in ended] == [2, 2]
    assert "data.path (rows) is 37 rows" in ended[0].error
    assert "on rank 1" in ended[0].error
    assert not ended[1].error


def test_all_ranks_end_when_one_is_out_of_memory(
    command: Command, settings: list[str], tmp_path: Path
) -> None:
    rows = [{"prompt": "Why?", "response": "So. " * 300} for i in range(16)]
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    more = ["--data.path", str(path), "--data.max_length", "4000", "--data.val_fraction", "0"]
    more += ["--data.batch_size", "8", "--model.warmup", "0"]
    args = [*settings, *split(2, 2), *more, "--output_dir", str(tmp_path / "run")]
    fault = {1: Fault(f"{MODULE}.training_step", 1, "memory")}
    ended = command.wait_all(command.start_ranks(args, 2, faults=fault), 40)
    assert [result.code for result in ended] == [1, 1]
    assert ended[1].error.startswith("error (rank 1): out of memory. Lower data.batch_size")
    assert not ended[0].error


def test_two_processes_train_the_same_adapter_on_a_4_bit_base_as_one(
    command: Command, settings: list[str], tmp_path: Path
) -> None:
    more = ["--model.quantize", "nf4", "--trainer.max_steps", "6"]
    for ranks in (1, 2):
        args = [*settings, *split(ranks), *more, "--output_dir", str(tmp_path / str(ranks))]
        started = (
            command.start_ranks(args, ranks) if ranks > 1 else [command.start(args, name="-0")]
        )
        assert_success(command.wait_all(started))
    ours, theirs = (checkpoint(tmp_path / str(ranks), 6) for ranks in (2, 1))
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=TOLERANCE)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Two connected network namespaces; host n has the address 10.77.0.n."""
    names = [f"lit-{os.getpid()}-{n}" for n in (1, 2)]
    commands = [f"ip netns add {name}" for name in names]
    commands.append(f"ip link add eth0 netns {names[0]} type veth peer eth0 netns {names[1]}")
    for n, name in enumerate(names, 1):
        commands += [
            f"ip -n {name} address add 10.77.0.{n}/24 dev eth0",
            f"ip -n {name} link set eth0 up",
            f"ip -n {name} link set lo up",
        ]
    try:
        for line in commands:
            try:
                result = subprocess.run(line.split(), capture_output=True, text=True, check=False)
            except FileNotFoundError:
                pytest.skip("the command ip is needed to create network namespaces")
            if result.returncode:
                pytest.skip(
                    f"cannot create network namespaces here: {line}: {result.stderr.strip()}"
                )
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_two_hosts_under_torchrun_train_the_same_adapter_as_one_process(
    hosts: list[str], settings: list[str], runs: dict[int, Path], tmp_path: Path
) -> None:
    env = os.environ | {"GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
    env |= {"HF_DATASETS_CACHE": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    torchrun_args = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "10.77.0.1"]
    run = ["--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp"]
    run += ["--trainer.accumulate_grad_batches", "3", "--output_dir", str(tmp_path / "run")]
    started = [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run"),
                *(*torchrun_args, "--node_rank", str(rank), "-m", "lit.fit", *settings, *run),
            ],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for rank, host in enumerate(hosts)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert [process.returncode for process in started] == [0, 0], outputs
    assert not outputs[1][0]
    ours, theirs = (checkpoint(path, 12) for path in (tmp_path / "run", runs[1]))
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=0, atol=TOLERANCE)


def test_the_command_starts_the_other_rank_and_reports_when_it_is_killed(
    settings: list[str], runs: dict[int, Path], tmp_path: Path
) -> None:
    env = os.environ | {"HF_DATASETS_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    env |= {"PYTHONPATH": str(Path(__file__).parents[2])}
    args = [*settings, *split(2), "--output_dir", str(tmp_path / "run")]
    command = [sys.executable, "-m", "lit.fit", *args]
    with (tmp_path / "out").open("w") as out, (tmp_path / "error").open("w") as error:
        process = subprocess.Popen(
            command, env=env, stdout=out, stderr=error, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 90
        while "step 2/" not in (tmp_path / "out").read_text():
            assert time.monotonic() < deadline, (tmp_path / "error").read_text()
            time.sleep(0.01)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children.split()[0]), signal.SIGKILL)
        assert process.wait(60) == 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    error_text = (tmp_path / "error").read_text()
    _, error = error_text.splitlines()  # the first says that the libraries are loaded
    assert error.startswith("error: rank 1 is lost")
    assert main([*settings, *split(1), *args[-2:], "--ckpt_path", "last"]) == 0
    ours, theirs = (checkpoint(path, 12)["state_dict"] for path in (tmp_path / "run", runs[1]))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)
