"""python -m lit.fit --adapter D: a run that goes on from an adapter, ours or PEFT's."""

import json
from pathlib import Path

import datasets
import peft
import pytest
import torch
import yaml
from conftest import make_model
from transformers import AutoTokenizer

from lit.answering.sampling import Sampling
from lit.check import main as check
from lit.comparison.comparison import compare
from lit.fit import main as fit
from lit.run.metrics_file import read_losses
from lit.settings.arguments import parse
from lora.config import ConfigError
from lora.storage.metadata import read_quantization

EVERY = ["--checkpoint.every_n_train_steps", "1", "--checkpoint.save_top_k", "-1"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def rows(path: Path, about: str) -> str:
    lines = [
        {"prompt": f"How warm is {about} {i}?", "response": f"{i} degrees."} for i in range(12)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return str(path)


def command(folder: Path, data: str) -> list[str]:
    """Return a run of 2 epochs of 5 steps without a base."""
    return [
        *("--data.path", rows(folder / f"{data}.jsonl", data), "--trainer.accelerator", "cpu"),
        *("--data.val_fraction", "0.2", "--data.batch_size", "2", "--model.lr", "1e-2"),
        *("--trainer.max_epochs", "2"),
    ]


@pytest.fixture(scope="module")
def folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter of ours (first/adapter), one of PEFT, and a run on from ours."""
    folder = tmp_path_factory.mktemp("continued")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        first = ["--output_dir", str(folder / "first"), "--model.base", str(tiny_folder)]
        plain = ["--data.template", "plain", "--model.lora.r", "4", "--model.lora.variant", "pissa"]
        assert fit([*command(folder, "bed"), *first, *plain]) == 0
        kept = contents(folder / "first/adapter")
        second = [
            "--output_dir",
            str(folder / "second"),
            "--adapter",
            str(folder / "first/adapter"),
        ]
        dropout = ["--model.lora.lora_dropout", "0.1"]
        assert fit([*command(folder, "nozzle"), *second, *dropout, *EVERY]) == 0
        assert contents(folder / "first/adapter") == kept
    return folder


@pytest.fixture
def again(folder: Path, tmp_path: Path) -> list[str]:
    """The second run's config, in another folder."""
    return ["--config", str(folder / "second/config.yaml"), "--output_dir", str(tmp_path / "run")]


def test_the_first_validation_is_the_loss_of_the_adapter(folder: Path, tmp_path: Path) -> None:
    result = compare(
        adapter=folder / "first/adapter",
        base=None,
        data=folder / "second/validation.jsonl",
        questions_file=None,
        folder=tmp_path,
        max_answers=0,
        budget=0,
        metrics=[],
        template="auto",
        template_kwargs=None,
        quantize=None,
        precision=None,
        device="cpu",
        batch_size=2,
        sampling=Sampling(max_new_tokens=1),
    )
    assert result.loss is not None
    step, loss = read_losses(folder / "second/metrics.csv")[1][0]
    assert step == 0
    assert loss == pytest.approx(result.loss.tuned, rel=1e-5)
    assert abs(result.loss.tuned - result.loss.base) > 1e-3


def test_the_run_keeps_the_settings_and_the_template_of_the_adapter(folder: Path) -> None:
    config = yaml.safe_load((folder / "second/config.yaml").read_text("utf-8"))
    adapter = folder / "first/adapter"
    assert config["model"]["adapter"] == str(adapter)
    lora = config["model"]["lora"]
    # PiSSA of rank 4 is written as LoRA of rank 8.
    assert (lora["r"], lora["variant"], lora["lora_dropout"]) == (8, "lora", 0.1)
    template = "chat_template.jinja"
    assert (folder / "second/adapter" / template).read_bytes() == (adapter / template).read_bytes()
    card = (folder / "second/adapter/README.md").read_text("utf-8")
    assert "Training went on from the adapter" in card
    assert "| before this training |" in card
    assert "| base |" not in card


def test_the_saved_config_repeats_a_continued_run(
    folder: Path, again: list[str], tmp_path: Path
) -> None:
    assert fit(again) == 0
    for name in ("adapter/adapter_model.safetensors", "metrics.csv"):
        ours, theirs = tmp_path / "run" / name, folder / "second" / name
        if name.endswith(".csv"):
            assert read_losses(ours) == read_losses(theirs)
        else:
            assert ours.read_bytes() == theirs.read_bytes()


def test_a_resumed_continued_run_equals_one_that_never_stopped(
    folder: Path, again: list[str], tmp_path: Path
) -> None:
    (middle,) = (folder / "second/checkpoints").glob("step-4.ckpt")
    assert fit([*again, "--ckpt_path", str(middle)]) == 0
    last = [
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (folder / "second", tmp_path / "run")
    ]
    assert last[0].keys() == last[1].keys()
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_an_adapter_of_peft_is_trained_on_from_where_it_was(
    folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    settings = peft.LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj"], use_dora=True)
    theirs = peft.get_peft_model(make_model(), settings)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    adapter = ["--adapter", str(tmp_path / "theirs"), "--model.base", str(tiny_folder)]
    run = tmp_path / "run"
    assert fit([*command(tmp_path, "bed"), *adapter, "--output_dir", str(run)]) == 0
    held_out = (run / "validation.jsonl").read_text("utf-8").splitlines()
    tokenizer, total, labels = AutoTokenizer.from_pretrained(tiny_folder), 0.0, 0
    for line in held_out:
        messages = json.loads(line)["messages"]
        whole, prompt = (
            tokenizer.apply_chat_template(part, return_dict=False, add_generation_prompt=open_)
            for part, open_ in ((messages, False), (messages[:-1], True))
        )
        # The newline after the last end token is no answer.
        whole = whole[: len(whole) - whole[::-1].index(tokenizer.eos_token_id)]
        with torch.no_grad():
            scores = theirs(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        answer = range(len(prompt), len(whole))
        total -= sum(float(scores[i - 1, whole[i]]) for i in answer)
        labels += len(answer)
    _, validations = read_losses(run / "metrics.csv")
    assert validations[0][1] == pytest.approx(total / labels, rel=1e-4)
    assert min(loss for _, loss in validations) < validations[0][1]


def test_the_check_names_the_adapter_and_loads_no_weights(
    again: list[str], folder: Path, capsys: pytest.CaptureFixture
) -> None:
    assert check(again) == 0
    printed = capsys.readouterr().out
    assert "goes on from the adapter" in printed
    assert "other layers" not in printed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--model.lora.r", "4"], "model.lora.r is 4, and the adapter has 8"),
        (["--model.lora.variant", "pissa"], "model.lora.variant is pissa, and the adapter has"),
        (["--model.lora.target_modules", "[q_proj]"], "model.lora.target_modules is ['q_proj']"),
    ],
)
def test_other_lora_settings_are_refused_by_fit_and_check(
    given: list[str], said: str, again: list[str], capsys: pytest.CaptureFixture
) -> None:
    for main in (fit, check):
        assert main([*again, *given]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_another_base_and_another_template_are_said(
    again: list[str],
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "500")  # no line of the table is broken
    (tmp_path / "base").symlink_to(tiny_folder)
    base = ["--model.base", str(tmp_path / "base")]
    assert check([*again, *base, "--data.template", "chat"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "leave model.base out" in printed
    assert "leave data.template out" in printed


@pytest.mark.parametrize("below", ["", "run"])
def test_a_run_does_not_write_into_the_folder_of_its_adapter(
    below: str, folder: Path, again: list[str], capsys: pytest.CaptureFixture
) -> None:
    adapter = folder / "first/adapter"
    kept = contents(adapter)
    assert fit([*again, "--output_dir", str(adapter / below)]) == 2
    assert "would write into that folder" in capsys.readouterr().err
    assert fit([*again, "--output_dir", str(folder / "first"), "--overwrite", "true"]) == 2
    assert "which this run would replace" in capsys.readouterr().err
    assert contents(adapter) == kept


def test_the_base_is_quantized_as_the_adapter_remembers_unless_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = str(folder / "first/adapter")
    assert read_quantization(adapter) is None
    monkeypatch.setattr("lit.settings.continuing.read_quantization", lambda folder: "nf4")
    needed = ["--adapter", adapter, "--data.path", str(folder / "bed.jsonl")]
    needed += ["--trainer.accelerator", "cpu"]
    assert parse(needed).config.model.quantize == "nf4"
    assert parse([*needed, "--model.quantize", "null"]).config.model.quantize is None


def test_a_config_file_names_the_adapter_and_the_command_line_another(
    folder: Path, tmp_path: Path
) -> None:
    first, second = (str(folder / name / "adapter") for name in ("first", "second"))
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"model": {"adapter": first}, "data": {"path": "x.jsonl"}}))
    for given, used in (
        ([], first),
        (["--model.adapter", second], second),
        ([f"--adapter={second}"], second),
    ):
        config = parse(["--config", str(file), "--trainer.accelerator", "cpu", *given]).config
        assert (config.model.adapter, config.model.lora.r) == (used, 8)
    with pytest.raises(ConfigError, match=r"model\.base is required"):
        parse(["--data.path", "x.jsonl", "--config", str(file), "--model.adapter", "null"])
