"""python -m lit.check: its findings, its page, and its estimates without weights."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAMILIES, SMALL, make_model
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM

from data.beginnings.find import find_beginnings
from data.planning.batch import collate
from data.planning.loader import neighbors_of
from data.types import IGNORE, Batch, Example
from lit.check import main
from lit.fast_layers.table import use_fast_layers
from lit.fit import main as fit
from lit.packing.hidden_states import hidden_states
from lit.packing.pack import pack
from lit.preflight.checkup import examine
from lit.preflight.estimate import meta_model
from lit.preflight.meta_step import StepMemory, trace_step
from lit.settings.arguments import parse
from lora.config import LoRAConfig
from lora.injection import count_parameters, inject

HOSTILE = "<script>alert(1)</script> <|im_end|> \x1b[31m [bold]"
ROWS = [
    {"prompt": f"How warm is bed {i}? {HOSTILE}", "response": f"It is {i} degrees {HOSTILE}"}
    for i in range(120)
]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def weightless(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder without its weights."""
    folder = tmp_path_factory.mktemp("weightless")
    for path in tiny_folder.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    return folder


@pytest.fixture
def command(weightless: Path, tmp_path: Path) -> list[str]:
    """A run without problems."""
    return [
        *("--model.base", str(weightless), "--data.path", write(tmp_path / "rows.jsonl", ROWS)),
        *("--output_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"),
    ]


def same_answer(folder: Path) -> list[str]:
    rows = [row | ({"response": "Yes."} if i % 2 else {}) for i, row in enumerate(ROWS)]
    return ["--data.path", write(folder / "same.jsonl", rows)]


def few(folder: Path) -> list[str]:
    return ["--data.path", write(folder / "few.jsonl", ROWS[:30]), "--model.lr", "1e-3"]


def unknown_end(folder: Path) -> list[str]:
    file = folder / "pad.jinja"
    file.write_text("{% for m in messages %}{{ m['content'] }}<pad>{% endfor %}")
    return ["--data.template", str(file)]


def unknown_language(folder: Path) -> list[str]:
    rows = [{"prompt": f"Γιατί ξεκολλάει {i};", "response": f"Επειδή κρύο {i}."} for i in range(60)]
    return ["--data.path", write(folder / "greek.jsonl", rows)]


FAULTS = {
    "an unknown language": (unknown_language, r"needs \d+\.\d tokens for a word of these texts"),
    "low lr": (["--model.lr", "5e-5"], r"81 optimizer steps at model.lr 5e-5 rarely change"),
    "low lr, fix": (["--model.lr", "5e-5"], "add --model.lr 1e-4 or --trainer.max_epochs 4"),
    "high lr": (["--model.lr", "3e-2"], "150 times the usual 2e-4"),
    "cut rows": (
        ["--data.max_length", "130"],
        r"100% of the rows are longer than data.max_length 130 .* add --data.max_length 192, ",
    ),
    "rows too long for the model": (
        ["--data.path", "{long}", "--data.max_length", "2000"],
        "but the model supports 256: add --data.max_length 256",
    ),
    "plain for a chat model": (["--data.template", "plain"], "add --data.template auto"),
    "an unknown end token": (unknown_end, "ends an answer with <pad>"),
    "no validation": (
        ["--data.val_fraction", "0"],
        "0 rows validate.* add --data.val_fraction 0.1",
    ),
    "validation after the last step": (
        ["--data.val_every_n_steps", "500"],
        "has 81 optimizer steps, so it validates once, .* add --data.val_every_n_steps 20",
    ),
    "few validation rows": (
        ["--data.val_fraction", "0.03"],
        "4 rows validate.* use 20 rows or more",
    ),
    "few rows": (few, "27 rows train: .* 200 or more"),
    "one answer": (same_answer, r"5\d% of the rows have the same answer, “Yes.”"),
}
FATAL = {
    "a long warm-up": (
        ["--model.warmup", "81"],
        "the warm-up has 81 steps, and the whole run has 81",
    ),
    "no end": (["--trainer.max_epochs", "-1"], "the run has no end"),
    "validation after the end": (["--trainer.val_check_interval", "28"], "has 27 micro-batches"),
}


def test_more_tokens_than_embedding_rows_are_refused(
    command: list[str], weightless: Path, tmp_path: Path
) -> None:
    """Issue 16, 4."""
    folder = shutil.copytree(weightless, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 319}))
    found = findings(command, ["--model.base", str(folder)], tmp_path)
    assert found[0][0].startswith("the tokenizer has 320 tokens, but the model's embedding has 319")
    assert found[0][1]


def findings(command: list[str], changed: object, folder: Path) -> list[tuple[str, bool]]:
    if callable(changed):
        changed = changed(folder)
    long = [{"prompt": f"{i} " + "why " * 150, "response": f"So {i}"} for i in range(60)]
    settings = [
        write(folder / "long.jsonl", long) if word == "{long}" else word
        for word in changed  # type: ignore[attr-defined]
    ]
    return [tuple(finding) for finding in examine(parse([*command, *settings])).findings]


def test_a_sound_run_has_no_findings(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert findings(command, ["--data.val_fraction", "0.2"], tmp_path) == []
    assert main([*command, "--data.val_fraction", "0.2"]) == 0
    output = capsys.readouterr().out
    assert "This run works. No problems were found." in output
    assert "\x1b" not in output


@pytest.mark.parametrize("fault", FAULTS)
def test_a_problem_is_a_warning_and_not_fatal(
    fault: str, command: list[str], tmp_path: Path
) -> None:
    changed, expected = FAULTS[fault]
    found = findings(command, changed, tmp_path)
    assert [text for text, _ in found if re.search(expected, text)]
    assert not any(fatal for _, fatal in found)


@pytest.mark.parametrize("fault", FATAL)
def test_check_and_fit_refuse_a_fatal_problem_before_loading_weights(
    fault: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    changed, expected = FATAL[fault]
    assert main([*command, *changed]) == 2
    output = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "This run cannot work with these settings." in output
    assert fit([*command, *changed]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert "--force true" in error
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"check.html"}


def test_force_runs_anyway(
    command: list[str], tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    short = ["--trainer.max_steps", "2", "--model.warmup", "2", "--model.base", str(tiny_folder)]
    assert fit([*command, *short]) == 2
    assert fit([*command, *short, "--force", "true"]) == 0
    assert "check  the warm-up has 2 steps" in capsys.readouterr().out
    assert "force: false" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_page_is_complete_and_escapes_the_rows_text(command: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("step,epoch,train/loss\n")
    assert main(command) == 0
    page = (run / "check.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,") == 1
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    labeled = re.findall(r'<span class="labeled">(.*?)</span>', page, re.DOTALL)
    assert len(labeled) == 1
    assert labeled[0].startswith("It is")
    assert labeled[0].endswith("&lt;|im_end|&gt;")
    # The files of an existing run stay unchanged.
    assert {path.name for path in run.iterdir()} == {"metrics.csv", "check.html"}


def test_every_row_is_counted_and_bad_ones_are_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [*ROWS, {"prompt": "x", "response": ""}, {"prompt": "why " * 200, "response": "So."}]
    data = ["--data.path", write(tmp_path / "some.jsonl", rows), "--data.on_bad_row", "skip"]
    assert main([*command, *data, "--data.max_length", "250"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"some.jsonl +│ 122 +│ 121 +│ 1 +│ 0 +│ 1 ", output)
    assert "some.jsonl:121" in output
    assert "some.jsonl:122" in output


def test_without_an_output_dir_only_the_page_is_missing(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert main([*command, "--output_dir", str(file)]) == 0
    assert "the page is not written" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
def test_parameters_are_counted_without_weights(variant: str, weightless: Path) -> None:
    config = LoRAConfig(variant=variant, modules_to_save=["lm_head"])
    real, empty = make_model(), meta_model(str(weightless), None, torch.float32)
    inject(real, config)
    inject(empty, config)
    assert count_parameters(real) == count_parameters(empty)
    assert {p.device.type for p in empty.parameters()} == {"meta"}


LENGTHS = (37, 20, 9)


def row(*parts: int) -> Example:
    """A row of ranges of tokens, each given by its first token and its length."""
    ranges = zip(parts[::2], parts[1::2], strict=True)
    ids = [3 + n % 300 for start, size in ranges for n in range(start, start + size)]
    return Example(ids, [IGNORE] * (len(ids) - 1) + ids[-1:])


ROWS_OF_A_BATCH = {
    "nothing shared": [row(n, length) for n, length in enumerate(LENGTHS)],
    "the fewest tokens": [row(0, 8, n, 40) for n in (50, 150)],
    "a system text": [row(0, 60, n, 12) for n in (70, 90, 110, 130)],
    "two documents": [row(0, 9, d, 40, n, 5) for d in (20, 120) for n in (230, 240, 250)],
}


def batch_of(rows: list[Example], shared: bool = True) -> Batch:
    neighbors = neighbors_of(find_beginnings(rows), np.arange(len(rows))) if shared else None
    return collate(rows, neighbors=neighbors)


def saved_bytes(family: str, config: LoRAConfig, batch: Batch) -> int:
    """Return the bytes that autograd saves in a real forward pass, with its result."""
    model = make_model(family)
    inject(model, config)
    pack(model)
    use_fast_layers(model, ["gated MLP"])
    model.train()
    frozen = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    saved: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor):
        save(hidden_states(model, batch))
    return sum(t.untyped_storage().nbytes() for key, t in saved.items() if key not in frozen)


def estimated(
    family: str, config: LoRAConfig, batch: Batch, gradient_checkpointing: bool = False
) -> StepMemory:
    """Return the memory of a step from a trace on the meta device."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(make_model(family).config)
    inject(model, config)
    labels = batch.label_count
    return trace_step(model, batch.lengths, labels, gradient_checkpointing, batch.paths)


@pytest.mark.parametrize("rows", ["nothing shared", "two documents"])
@pytest.mark.parametrize("family", FAMILIES)
def test_estimated_activations_equal_what_autograd_saves(family: str, rows: str) -> None:
    config = LoRAConfig(target_modules="all-linear", lora_dropout=0.1)
    batch = batch_of(ROWS_OF_A_BATCH[rows])
    assert estimated(family, config, batch).activations == saved_bytes(family, config, batch)


def test_the_activations_of_rows_that_share_beginnings_are_known(command: list[str]) -> None:
    checkup = examine(parse(command))
    assert checkup.forecast.shared
    assert checkup.estimate.activations_known


@pytest.mark.parametrize("rows", [name for name in ROWS_OF_A_BATCH if name != "nothing shared"])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2"])
def test_shared_beginnings_need_no_more_memory_than_separate_rows(family: str, rows: str) -> None:
    config = LoRAConfig(target_modules="all-linear", lora_dropout=0.1)
    together, apart = (batch_of(ROWS_OF_A_BATCH[rows], shared) for shared in (True, False))
    assert together.paths
    ours, theirs = (estimated(family, config, batch) for batch in (together, apart))
    assert ours.activations < theirs.activations
    assert ours.peak < theirs.peak


@pytest.mark.parametrize("targets", ["all-linear", "attention", "mlp"])
@pytest.mark.parametrize("r", [2, 8])
def test_activations_follow_from_the_sizes_of_a_llama(targets: str, r: int) -> None:
    """Count what a llama of 2 layers saves per token: hidden 32, MLP 48, heads of 8."""
    hidden, inner, query, key = 32, 48, 32, 16
    attention, mlp = targets != "mlp", targets != "attention"
    norm = hidden + 1  # input and scale
    heads = 2 * query + 2 * key + 4  # queries, keys, values, output; one sum per head
    layer = 2 * norm + heads + 2 * inner  # gate, up
    layer += attention * (hidden + query + 4 * r)  # inputs of q, k, v and of o
    layer += mlp * (hidden + 3 * r)  # the input of gate and up; that of down is recomputed
    numbers = 2 * layer + norm + hidden + 2 * 8  # the last norm, the output, cosines and sines
    # Operations before the first adapter need no gradient.
    numbers -= norm if attention else 2 * norm + heads
    config = LoRAConfig(r=r, target_modules=targets)
    batch = batch_of(ROWS_OF_A_BATCH["nothing shared"])
    assert estimated("llama", config, batch).activations == sum(LENGTHS) * 4 * numbers


def test_checkpointing_saves_less_than_a_quarter_of_the_activations() -> None:
    config = LoRAConfig(target_modules="all-linear")
    batch = batch_of(ROWS_OF_A_BATCH["nothing shared"])
    plain, checkpointed = (estimated("llama", config, batch, on) for on in (False, True))
    assert checkpointed.activations < plain.activations / 4


def test_a_mixture_of_experts_is_estimated_without_activations(
    command: list[str], tokenizer_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "experts"
    shutil.copytree(tokenizer_file, folder)
    AutoConfig.for_model("mixtral", **SMALL, num_local_experts=2).save_pretrained(folder)
    settings = ["--model.base", str(folder), "--model.lora.target_modules", "attention"]
    assert main([*command, *settings]) == 0
    assert "Activations are not included" in " ".join(capsys.readouterr().out.split())
