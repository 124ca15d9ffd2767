"""A base sharded over two processes: the run equals one process's, and each holds half."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import peft
import pytest
import torch
from command import Command, Result
from conftest import make_model
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lit.fit import main
from lit.model.base import load_base
from lit.model.tuned import load_tuned
from lora.injection import VARIANTS

TOLERANCE = {"atol": 1e-4, "rtol": 0}
"""Adam's first step is a whole one of 1e-2 for any gradient, even for one of rounding."""
ROWS = [
    {
        "prompt": f"How warm must bed {i} be?" + " Say why." * (i % 3),
        "response": f"Bed {i} must be {50 + i} degrees warm.",
    }
    for i in range(27)
]


class Case(NamedTuple):
    """A run: a model of conftest, and settings."""

    family: str
    model: dict[str, Any]
    settings: list[str]


TIED = {"tie_word_embeddings": True}
CASES = {
    "plain": Case(
        "llama",
        {},
        [
            *("--trainer.max_epochs", "2"),
            *("--checkpoint.every_n_train_steps", "4", "--checkpoint.save_top_k", "-1"),
        ],
    ),
    **{
        f"{name}, tied": Case("qwen2", TIED, ["--model.lora.variant", name])
        for name in VARIANTS
        if name != "lora"
    },
    "bf16, 8 bits, checkpointed": Case(
        "llama",
        {},
        [
            *("--trainer.precision", "bf16-true", "--model.optimizer", "adamw_8bit"),
            *("--model.gradient_checkpointing", "true"),
        ],
    ),
    "capped logits, tied": Case("gemma3_text", TIED | {"final_logit_softcapping": 5.0}, []),
    "whole head": Case("llama", {}, ["--model.lora.modules_to_save", "[lm_head]"]),
    "whole embedding, tied": Case(
        "llama", TIED, ["--model.lora.modules_to_save", "[embed_tokens]"]
    ),
}
"""Runs to compare between one and two processes. In an epoch's last step one rank has no row."""


REFUSED = {"row by row": Case("stablelm", {}, [])}
SIDES = {
    "one": ["--trainer.accumulate_grad_batches", "2"],
    "two": ["--trainer.devices", "2", "--trainer.strategy", "fsdp2"],
}
"""The same number of micro-batches per step, with one process and with two."""


class Runs(NamedTuple):
    """The folders of the runs, and the results of both ranks."""

    path: Path
    ended: dict[str, list[Result]]

    def codes(self, name: str) -> list[int]:
        """Return the exit codes of a run's ranks, and print what they said of an error."""
        for result in self.ended[name]:
            print(result.error)
        return [result.code for result in self.ended[name]]

    def one(self, name: str) -> Path:
        """Return the folder of a run with one process."""
        return self.path / "one" / name

    def two(self, name: str) -> Path:
        """Return the folder of a run with two processes."""
        return self.path / "two" / name


@pytest.fixture(scope="module")
def runs(brief: None, tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Every case with one process and with two; one resumed run; and one that is refused."""
    path = tmp_path_factory.mktemp("sharding")
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, case in (CASES | REFUSED).items():
        # Some families' tokenizers add a token to the 320 of the small one.
        make_model(case.family, **{"vocab_size": 328} | case.model).save_pretrained(
            path / "models" / name
        )
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_file)
        tokenizer.save_pretrained(path / "models" / name)

    def line(name: str, side: str, run: str) -> list[str]:
        return [
            *("--model.base", str(path / "models" / name)),
            *("--output_dir", str(path / side / run)),
            *("--model.lora.lora_dropout", "0.1", "--model.lora.neftune_alpha", "5"),
            *("--data.path", str(path / "rows.jsonl"), "--data.val_fraction", "0.2"),
            *("--data.batch_size", "2", "--model.lr", "1e-2", "--trainer.max_epochs", "1"),
            *("--trainer.callbacks+", "tests.held.Held"),
            *("--trainer.callbacks.path", str(path / f"{side} {run}")),
            *("--trainer.accelerator", "cpu", *SIDES[side], *(CASES | REFUSED)[name].settings),
        ]

    for name in CASES:
        assert main(line(name, "one", name)) == 0
    lines = {name: line(name, "two", name) for name in CASES | REFUSED}

    def resumed(first: str, side: str) -> list[str]:
        middle = path / first / "plain" / "checkpoints" / "step-4.ckpt"
        return [*line("plain", side, f"resumed from {first}"), "--ckpt_path", str(middle)]

    lines |= {f"resumed from {first}": resumed(first, "two") for first in SIDES}
    with Command(path) as command:
        ended = {
            name: command.wait_all(command.start_ranks(args, 2)) for name, args in lines.items()
        }
    assert main(resumed("two", "one")) == 0
    return Runs(path, ended)


def checkpoint(run: Path, name: str = "last.ckpt") -> dict[str, Any]:
    """Load a checkpoint of a run."""
    return torch.load(run / "checkpoints" / name, weights_only=True)


def numbers(run: Path, column: str) -> list[float]:
    """Read a column of a run's metrics."""
    with (run / "metrics.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file) if row[column]]


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype
        torch.testing.assert_close(actual[name], tensor, **TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_the_same_adapter_as_one(runs: Runs, name: str) -> None:
    assert runs.codes(name) == [0, 0]
    one, two = checkpoint(runs.one(name)), checkpoint(runs.two(name))
    assert one["global_step"] == two["global_step"] >= 6
    assert_close(two["state_dict"], one["state_dict"])
    weights = "adapter/adapter_model.safetensors"
    assert_close(load_file(runs.two(name) / weights), load_file(runs.one(name) / weights))
    config = "adapter/adapter_config.json"
    assert (runs.two(name) / config).read_text() == (runs.one(name) / config).read_text()


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradient_norms_equal_those_of_one_process(runs: Runs, name: str) -> None:
    for column in ("train/loss", "train/grad_norm", "val/loss"):
        one, two = numbers(runs.one(name), column), numbers(runs.two(name), column)
        assert two == pytest.approx(one, abs=1e-5)


def test_sampled_answers_equal_those_of_one_process(runs: Runs) -> None:
    one, two = (
        [
            event.tensor_proto.string_val[0]
            for event in EventAccumulator(str(run / "tensorboard"))
            .Reload()
            .Tensors("answer 1/text_summary")
        ]
        for run in (runs.one("plain"), runs.two("plain"))
    )
    assert len(one) == 3
    assert one == two


@pytest.mark.parametrize("name", CASES)
def test_a_rank_holds_half_of_the_base(runs: Runs, name: str) -> None:
    for rank in (0, 1):
        held = json.loads(Path(f"{runs.path}/two {name}.{rank}").read_text())
        assert held["here"] == pytest.approx(held["all"] / 2, rel=0.01)
        assert held["dtypes"] == ["torch.float32"]
    whole = json.loads(Path(f"{runs.path}/one {name}.0").read_text())
    assert whole["here"] >= whole["all"] == held["all"]


def test_a_checkpoint_is_one_file_with_the_unsharded_adapter_only(runs: Runs) -> None:
    one, two = (checkpoint(side("plain"), "step-12.ckpt") for side in (runs.one, runs.two))
    assert one.keys() == two.keys()
    assert all(key.endswith(("lora_A", "lora_B")) for key in two["state_dict"])
    (mine,), (theirs,) = two["optimizer_states"], one["optimizer_states"]
    assert mine["param_groups"] == theirs["param_groups"]
    for number, moments in theirs["state"].items():
        assert_close(mine["state"][number], moments)


@pytest.mark.parametrize("first", SIDES)
def test_a_run_resumed_sharded_or_in_one_process_equals_an_uninterrupted_one(
    runs: Runs, first: str
) -> None:
    name = f"resumed from {first}"
    assert runs.codes(name) == [0, 0]
    whole = checkpoint(runs.two("plain"))
    for folder in (runs.two(name), runs.one("resumed from two")):
        resumed = checkpoint(folder)
        assert resumed["global_step"] == whole["global_step"]
        assert_close(resumed["state_dict"], whole["state_dict"])


@pytest.mark.parametrize("name", ["plain", "dora, tied", "pissa, tied", "whole head"])
def test_peft_loads_the_adapter_of_two_processes(runs: Runs, name: str) -> None:
    base, adapter = str(runs.path / "models" / name), runs.two(name) / "adapter"
    theirs = peft.PeftModel.from_pretrained(load_base(base), adapter).eval()
    ours, _ = load_tuned(adapter)
    ids = torch.arange(40)[None]
    logits = ours(ids).logits
    torch.testing.assert_close(theirs(ids).logits, logits, atol=1e-4, rtol=0)
    assert (logits - load_base(base)(ids).logits).abs().max() > 1e-2


def test_a_family_without_packed_attention_is_refused_by_both_ranks(runs: Runs) -> None:
    assert runs.codes("row by row") == [2, 2]
    error = runs.ended["row by row"][0].error
    assert (
        "does not pass the row lengths to attention: trainer.strategy fsdp2 cannot train" in error
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--model.quantize", "nf4", "--trainer.strategy", "fsdp2"], "model.quantize is nf4"),
        (["--trainer.strategy", "fsdp"], "set trainer.strategy to fsdp2"),
        (["--trainer.strategy", "ModelParallelStrategy"], "set trainer.strategy to fsdp2"),
    ],
)
def test_an_unsupported_sharding_is_refused_with_one_line_before_loading(
    settings: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(ROWS[0]) + "\n")
    paths = ["--model.base", str(tmp_path / "none"), "--data.path", str(tmp_path / "rows.jsonl")]
    assert main([*paths, *settings, "--output_dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
