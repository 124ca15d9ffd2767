"""python -m lit.compare: its numbers, its files and its page."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data.types import IGNORE, Example
from lit.answering.generation import answers, stream
from lit.answering.sampling import Sampling
from lit.compare import main
from lit.fit import main as fit
from lit.measures.losses import Losses, measuring_losses
from lit.model.tuned import load
from lora.injection import adapters_disabled

HOSTILE = '<script>alert(1)</script> | **bold** $x_1$ & "quotes"'


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a tiny model; its rows try to break the page."""
    folder = tmp_path_factory.mktemp("run")
    rows = [
        {"prompt": f"Вопрос {i}: {HOSTILE}", "response": f"Ответ номер {i}."} for i in range(12)
    ]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    command = [
        *("--model.base", str(tiny_folder), "--data.path", str(data), "--model.lr", "1e-2"),
        *("--output_dir", str(folder / "run"), "--trainer.accelerator", "cpu"),
        *("--data.val_fraction", "0.5"),
    ]
    assert fit(command) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def comparison(run: Path) -> Path:
    """The run's comparison with default arguments."""
    assert main(["--adapter", str(run / "adapter"), "--max_new_tokens", "12"]) == 0
    return run / "comparison"


def test_a_comparison_writes_its_files(comparison: Path) -> None:
    assert {path.name for path in comparison.iterdir()} == {
        *("report.html", "report.md", "report.json", "base_answers.txt", "tuned_answers.txt"),
        *("training_loss.png", "comparison_table.png", "dataset_example.png"),
    }


def test_the_measured_loss_equals_the_one_of_training(run: Path, comparison: Path) -> None:
    result = json.loads((comparison / "report.json").read_text("utf-8"))
    card = (run / "adapter" / "README.md").read_text("utf-8")
    base, tuned = re.findall(r"^\| (?:base|with this adapter) \| ([\d.]+)", card, re.MULTILINE)
    assert result["loss"]["base"] == pytest.approx(float(base), abs=1e-4)
    assert result["loss"]["tuned"] == pytest.approx(float(tuned), abs=1e-4)
    assert result["loss"]["rows"] == 6
    assert "never trained on" in result["data_source"]


def test_page_markdown_json_and_card_have_the_same_figures(run: Path, comparison: Path) -> None:
    result = json.loads((comparison / "report.json").read_text("utf-8"))
    texts = {
        name: html.unescape(path.read_text("utf-8")).replace("\\", "")
        for name, path in {
            "page": comparison / "report.html",
            "markdown": comparison / "report.md",
            "card": run / "adapter" / "README.md",
        }.items()
    }
    loss = result["loss"]
    figures = [[f"{loss[which]:.4f}" for which in ("base", "tuned")]]
    figures[0] += [f"{loss[end]:+.4f}" for end in ("ci_low", "ci_high") if loss[end] is not None]
    for measure in result["measures"]:
        form = ".1%" if measure["share"] else ".4f"
        figures.append([measure["name"], *(f"{measure[x]:{form}}" for x in ("base", "tuned"))])
    assert len(figures) > 5
    for name, text in texts.items():
        assert result["verdict"]["sentence"] in text, name
        rows = re.findall(r"<tr>.*?</tr>|^\|.*\|$", text, re.MULTILINE | re.DOTALL)
        for parts in figures:
            assert any(all(part in row for part in parts) for row in rows), (name, parts)


def test_the_page_is_complete_and_escapes_the_rows_text(comparison: Path) -> None:
    page = (comparison / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)


def test_markdown_keeps_each_text_in_its_cell(comparison: Path) -> None:
    text = (comparison / "report.md").read_text("utf-8")
    assert "<script>" not in text
    tables = [line for line in text.splitlines() if line.startswith("|") and "Вопрос" in line]
    assert len(tables) == 6
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in tables)


def test_without_a_run_data_or_questions_are_required(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = tmp_path / "adapter"
    moved.mkdir()
    for path in (run / "adapter").iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert main(["--adapter", str(moved)]) == 2
    assert "add --data FILE or --questions FILE" in capsys.readouterr().err
    questions = tmp_path / "questions.txt"
    questions.write_text("Что это?\n\nКак это?\n", "utf-8")
    command = ["--adapter", str(moved), "--questions", str(questions), "--max_new_tokens", "4"]
    assert main(command) == 0
    result = json.loads((tmp_path / "comparison" / "report.json").read_text("utf-8"))
    assert [pair["question"] for pair in result["answers"]] == ["Что это?", "Как это?"]
    assert result["loss"] is None
    assert result["forgetting"]["rows"] == 24


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["--adapter", "nowhere"], "adapter_config.json"),
        (["--questions", "nowhere.txt"], "nowhere.txt"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl does not exist"),
        (["--base", "./nowhere"], "no folder ./nowhere"),
        (["--temperature", "-1"], "--temperature"),
        (["--max_new_tokens", "0"], "--max_new_tokens"),
    ],
)
def test_a_wrong_input_is_named_and_exits_with_2(
    command: list[str], expected: str, run: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["--adapter", str(run / "adapter"), *command]) == 2
    assert expected in capsys.readouterr().err


def test_losses_equal_plain_cross_entropy_row_by_row(run: Path) -> None:
    model, _ = load(run / "adapter")
    generator = torch.Generator().manual_seed(0)
    examples = []
    for length in (5, 17, 9, 30):
        ids = torch.randint(3, 300, (length,), generator=generator).tolist()
        examples.append(Example(ids, [IGNORE] * 3 + ids[3:]))
    with measuring_losses(model) as measure:
        measured = measure(examples, lambda rows: None)
    for row, example in enumerate(examples):
        ids = torch.tensor([example.ids])
        with torch.no_grad():
            tuned = model(ids).logits[0, 2:-1]
            with adapters_disabled(model):
                base = model(ids).logits[0, 2:-1]
        for sums, logits in ((measured.base, base), (measured.tuned, tuned)):
            expected = F.cross_entropy(logits, ids[0, 3:], reduction="sum")
            assert sums[row] == pytest.approx(float(expected), rel=1e-4)


def test_equal_models_show_no_difference() -> None:
    same = np.arange(1.0, 21.0)
    assert Losses(same, same, np.full(20, 5)).interval() == (0.0, 0.0)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_same_seed_gives_the_same_answer(run: Path, temperature: float) -> None:
    model, tokenizer = load(run / "adapter")
    sampling = Sampling(seed=3, temperature=temperature, top_p=0.9, max_new_tokens=20)
    ids = tokenizer("Почему деталь отклеилась?")["input_ids"]
    first, again = (stream(model, tokenizer, ids, sampling, lambda text: None) for _ in range(2))
    assert first == again
    if temperature:
        other = Sampling(seed=4, temperature=temperature, top_p=0.9, max_new_tokens=20)
        assert stream(model, tokenizer, ids, other, lambda text: None) != first


def test_batched_answers_equal_single_ones(run: Path) -> None:
    model, tokenizer = load(run / "adapter")
    sampling = Sampling(max_new_tokens=16)
    prompts = [tokenizer(text)["input_ids"] for text in ("PLA?", "Почему стол был холодным?", "A")]
    batched = dict(answers(model, tokenizer, prompts, sampling, batch_size=3))
    for index, prompt in enumerate(prompts):
        assert batched[index] == stream(model, tokenizer, prompt, sampling, lambda text: None)


def test_a_comparison_says_that_a_nucleus_makes_its_answers_slower(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    few = ["--answers", "2", "--max_new_tokens", "2", "--temperature", "0.7"]
    for top_p, said in (("1", 0), ("0.9", 1)):
        out = ["--top_p", top_p, "--output_dir", str(run.parent / f"p{top_p}")]
        assert main(["--adapter", str(run / "adapter"), *few, *out]) == 0
        assert capfd.readouterr().err.count("one question is answered at a time") == said


def test_each_answer_has_the_losses_of_its_own_row(run: Path, comparison: Path) -> None:
    result = json.loads((comparison / "report.json").read_text("utf-8"))
    losses = [(pair["base_loss"], pair["tuned_loss"]) for pair in result["answers"]]
    assert len(losses) == len(set(losses)) == 6
    improved = sum(tuned < base for base, tuned in losses)
    assert result["loss"]["improved_rows"] == improved > 3
    few = ["--answers", "3", "--max_new_tokens", "2", "--output_dir", str(run.parent / "few")]
    assert main(["--adapter", str(run / "adapter"), *few]) == 0
    some = json.loads((run.parent / "few" / "report.json").read_text("utf-8"))
    assert len(some["answers"]) == 3
    known = {pair["question"]: pair for pair in result["answers"]}
    for pair in some["answers"]:
        expected = known[pair["question"]]
        assert pair["base_loss"] == pytest.approx(expected["base_loss"], rel=1e-6)
        assert pair["tuned_loss"] == pytest.approx(expected["tuned_loss"], rel=1e-6)
