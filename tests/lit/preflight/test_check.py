"""python -m lit.check: what it says of a run, and how it knows without weights."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, SMALL, make_model
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM

from data.batch import collate
from data.types import Example
from lit.check import examine, main
from lit.fit import main as fit
from lit.model.attention import hidden_states, pack
from lit.model.gated_mlp import keep_less
from lit.preflight.estimate import skeleton
from lit.preflight.meta_step import rehearse
from lit.settings.arguments import parse
from lora.config import LoRAConfig
from lora.inject import count_parameters, inject

HOSTILE = "<script>alert(1)</script> <|im_end|> \x1b[31m [bold]"
ROWS = [
    {"prompt": f"How warm is bed {i}? {HOSTILE}", "response": f"It is {i} degrees {HOSTILE}"}
    for i in range(120)
]


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def bare(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder without its weights, that has room for long rows."""
    folder = tmp_path_factory.mktemp("bare")
    for path in tiny_folder.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    return folder


@pytest.fixture
def command(bare: Path, tmp_path: Path) -> list[str]:
    """A run that nothing speaks against."""
    return [
        *("--model.base", str(bare), "--data.path", write(tmp_path / "rows.jsonl", ROWS)),
        *("--output_dir", str(tmp_path / "run"), "--trainer.accelerator", "cpu"),
    ]


def same_answer(folder: Path) -> list[str]:
    rows = [row | ({"response": "Yes."} if i % 2 else {}) for i, row in enumerate(ROWS)]
    return ["--data.path", write(folder / "same.jsonl", rows)]


def few(folder: Path) -> list[str]:
    return ["--data.path", write(folder / "few.jsonl", ROWS[:30]), "--model.lr", "1e-3"]


def unlearned_end(folder: Path) -> list[str]:
    file = folder / "pad.jinja"
    file.write_text("{% for m in messages %}{{ m['content'] }}<pad>{% endfor %}")
    return ["--data.template", str(file)]


FAULTS = {
    "little learned": (["--model.lr", "5e-5"], r"81 optimizer steps at lr 5e-5 rarely change"),
    "a way out": (["--model.lr", "5e-5"], "raise model.lr to 1e-4 or trainer.max_epochs to 4"),
    "too fast": (["--model.lr", "3e-2"], "150 times the usual 2e-4"),
    "cut rows": (
        ["--data.max_length", "130"],
        r"100% of the rows are cut or left out at .* 130: 192",
    ),
    "beyond the model": (
        ["--data.path", "{long}", "--data.max_length", "2000"],
        "the model was made for 256",
    ),
    "plain for a chat model": (["--data.template", "plain"], "use auto or chat"),
    "an end never learned": (unlearned_end, "ends an answer with <pad>"),
    "no validation": (["--data.val_fraction", "0"], "no rows validate"),
    "little validation": (["--data.val_fraction", "0.03"], "4 rows validate"),
    "few rows": (few, "27 rows train"),
    "one answer": (same_answer, r"5\d% of the rows have one and the same answer, “Yes.”"),
}
FATAL = {
    "a long warm-up": (["--model.warmup", "81"], "warm-up of 81 steps is not shorter"),
    "half precision on a CPU": (["--trainer.precision", "16-mixed"], "needs a GPU"),
    "no end": (["--trainer.max_epochs", "-1"], "the run has no end"),
    "validation after the end": (["--trainer.val_check_interval", "28"], "epoch has 27 micro"),
}


def reasons(command: list[str], changed: object, folder: Path) -> list[tuple[str, bool]]:
    if callable(changed):
        changed = changed(folder)
    long = [{"prompt": f"{i} " + "why " * 150, "response": f"So {i}"} for i in range(60)]
    settings = [
        write(folder / "long.jsonl", long) if word == "{long}" else word
        for word in changed  # type: ignore[attr-defined]
    ]
    return [tuple(reason) for reason in examine(parse([*command, *settings])).reasons]


def test_nothing_speaks_against_a_sound_run(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert reasons(command, [], tmp_path) == []
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "nothing speaks against it" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("fault", FAULTS)
def test_a_doubt_is_said_and_does_not_stop(fault: str, command: list[str], tmp_path: Path) -> None:
    changed, said = FAULTS[fault]
    found = reasons(command, changed, tmp_path)
    assert [text for text, _ in found if re.search(said, text)]
    assert not any(fatal for _, fatal in found)


@pytest.mark.parametrize("fault", FATAL)
def test_what_cannot_work_is_refused_by_check_and_by_fit_before_weights(
    fault: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    changed, said = FATAL[fault]
    assert main([*command, *changed]) == 2
    output = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "this run cannot work" in output
    assert fit([*command, *changed]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "--force true" in error
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"check.html"}


def test_force_goes_on(
    command: list[str], tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    short = ["--trainer.max_steps", "2", "--model.warmup", "2", "--model.base", str(tiny_folder)]
    assert fit([*command, *short]) == 2
    assert fit([*command, *short, "--force", "true"]) == 0
    assert "check  the warm-up of 2 steps" in capsys.readouterr().out
    assert "force: false" in (tmp_path / "run" / "config.yaml").read_text()


def test_the_page_is_whole_and_escapes_what_rows_say(command: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("a run")
    assert main(command) == 0
    page = (run / "check.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,") == 1
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    learned = re.findall(r'<span class="learned">(.*?)</span>', page, re.DOTALL)
    assert len(learned) == 1
    assert learned[0].startswith("It is")
    assert learned[0].endswith("&lt;|im_end|&gt;")
    # A run that is there stays as it is.
    assert {path.name for path in run.iterdir()} == {"metrics.csv", "check.html"}


def test_every_row_is_accounted_for(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = [*ROWS, {"prompt": "x", "response": ""}, {"prompt": "why " * 200, "response": "So."}]
    data = ["--data.path", write(tmp_path / "some.jsonl", rows), "--data.on_bad_row", "skip"]
    assert main([*command, *data, "--data.max_length", "250"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"some.jsonl +│ 122 +│ 121 +│ 1 +│ 0 +│ 1 ", said)
    assert "some.jsonl:121" in said
    assert "some.jsonl:122" in said


def test_an_output_dir_that_cannot_be_made_costs_only_the_page(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert main([*command, "--output_dir", str(file)]) == 0
    assert "the page is not written" in capsys.readouterr().err


@pytest.mark.parametrize("variant", ["lora", "dora", "pissa"])
def test_parameters_are_counted_without_weights(variant: str, bare: Path) -> None:
    config = LoRAConfig(variant=variant, modules_to_save=["lm_head"])
    real, empty = make_model(), skeleton(str(bare), None, torch.float32)
    inject(real, config)
    inject(empty, config)
    assert count_parameters(real) == count_parameters(empty)
    assert {p.device.type for p in empty.parameters()} == {"meta"}


LENGTHS = (37, 20, 9)


def kept(family: str, config: LoRAConfig) -> int:
    """Bytes that autograd keeps of a real forward pass, its result included."""
    model = make_model(family)
    inject(model, config)
    batch = collate([Example(list(range(3, 3 + n)), list(range(3, 3 + n))) for n in LENGTHS])
    pack(model, batch)
    keep_less(model)
    model.train()
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    held: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        note(hidden_states(model, batch))
    return sum(t.untyped_storage().nbytes() for place, t in held.items() if place not in known)


def foretold(family: str, config: LoRAConfig, gradient_checkpointing: bool = False) -> int:
    """The same, from sizes alone."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(make_model(family).config)
    inject(model, config)
    return rehearse(model, LENGTHS, sum(LENGTHS), gradient_checkpointing).kept


@pytest.mark.parametrize("family", FAMILIES)
def test_the_activations_foretold_are_those_that_autograd_keeps(family: str) -> None:
    config = LoRAConfig(target_modules="all-linear", lora_dropout=0.1)
    assert foretold(family, config) == kept(family, config)


@pytest.mark.parametrize("targets", ["all-linear", "attention", "mlp"])
@pytest.mark.parametrize("r", [2, 8])
def test_activations_follow_from_the_architecture(targets: str, r: int) -> None:
    """What a llama of 2 layers keeps of a token: hidden 32, MLP 48, heads of 8."""
    hidden, inner, query, key = 32, 48, 32, 16
    attention, mlp = targets != "mlp", targets != "attention"
    norm = hidden + 1  # its input and scale
    heads = 2 * query + 2 * key + 4  # query, keys, values, result; a sum for each head
    layer = 2 * norm + heads + 2 * inner  # gate, up
    layer += attention * (hidden + query + 4 * r)  # inputs of q, k, v and of o
    layer += mlp * (hidden + 3 * r)  # the input of gate and up; that of down is made again
    numbers = 2 * layer + norm + hidden + 2 * 8  # the last norm, the result, cosines and sines
    # What stands before the first adapter needs no gradient.
    numbers -= norm if attention else 2 * norm + heads
    assert foretold("llama", LoRAConfig(r=r, target_modules=targets)) == sum(LENGTHS) * 4 * numbers


def test_checkpointing_keeps_a_layers_input_only() -> None:
    config = LoRAConfig(target_modules="all-linear")
    plain, spared = (foretold("llama", config, on) for on in (False, True))
    assert spared < plain / 4


def test_a_family_whose_sizes_depend_on_numbers_is_estimated_without_activations(
    command: list[str], tokenizer_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "experts"
    shutil.copytree(tokenizer_file, folder)
    AutoConfig.for_model("mixtral", **SMALL, num_local_experts=2).save_pretrained(folder)
    settings = ["--model.base", str(folder), "--model.lora.target_modules", "attention"]
    assert main([*command, *settings]) == 0
    assert "Activations come on top" in " ".join(capsys.readouterr().out.split())
