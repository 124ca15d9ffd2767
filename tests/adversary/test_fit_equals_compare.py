"""B5: fit, compare and a plain loop in transformers measure the same held-out loss."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
)

from data.formats.rows import to_messages
from data.readers.source import read
from data.template import encode
from data.types import IGNORE, Example, Row
from lit.answering.sampling import Sampling
from lit.comparison.comparison import compare
from lit.comparison.result import Comparison, verdict
from lit.comparison.run_settings import LoadSettings, read_run_settings
from lit.device.precision import PRECISIONS
from lit.fit import main as fit
from lit.run.folder import RunFolder
from lit.run.metrics_file import read_losses
from lora.config import ConfigError

MAX_LENGTH = 96


class Setting(NamedTuple):
    """How a run loads its base, and how far two ways to compute a loss may be apart."""

    precision: str
    quantize: str | None
    tolerance: float


BF16 = 5e-3
"""bfloat16 has 8 significant bits, and packed and single rows round at other places."""
SETTINGS = {
    "B5: float32": Setting("32-true", None, 1e-4),
    "B5: bf16-true": Setting("bf16-true", None, BF16),
    "B5: bf16-frozen": Setting("bf16-frozen", None, BF16),
    "B5: bf16-mixed": Setting("bf16-mixed", None, BF16),
    "B5: nf4": Setting("32-true", "nf4", 1e-4),
    "B5: nf4, bf16-mixed": Setting("bf16-mixed", "nf4", BF16),
}


def conversations() -> list[dict]:
    """Rows of which one turn does not train, and of which every third is too long."""
    rows = []
    for i in range(18):
        long = " ".join(f"word {n}" for n in range(40)) if i % 3 == 0 else ""
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": f"Question {i}? {long}"},
                    {"role": "assistant", "content": f"Untrained {i}.", "train": i % 2 == 0},
                    {"role": "user", "content": "And then?"},
                    {"role": "assistant", "content": f"Answer {i} is here.", "train": i % 4 != 2},
                ]
            }
        )
    return rows


def train(folder: Path, base: Path, setting: Setting) -> Path:
    """Run lit.fit for a few steps; return the run's folder."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in conversations()), "utf-8")
    quantize = ["--model.quantize", setting.quantize] if setting.quantize else []
    command = [
        *("--model.base", str(base), "--data.path", str(path), "--data.val_fraction", "0.4"),
        *("--data.max_length", str(MAX_LENGTH), "--model.lr", "1e-2", "--trainer.max_epochs", "1"),
        *("--trainer.precision", setting.precision, "--trainer.accelerator", "cpu"),
        *("--output_dir", str(folder / "run"), *quantize),
    ]
    assert fit(command) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run_with(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Setting], Path]:
    """Return a function from a setting to a finished run with it."""

    @cache
    def make(setting: Setting) -> Path:
        return train(tmp_path_factory.mktemp("run"), tiny_folder, setting)

    return make


def measure(run: Path, **changes: object) -> Comparison:
    """Compare a run's adapter with its base, without answers."""
    (run / "comparison").mkdir(exist_ok=True)
    arguments: dict = {
        "adapter": run / "adapter",
        "base": None,
        "data": None,
        "questions_file": None,
        "folder": run / "comparison",
        "max_answers": 0,
        "budget": 60.0,
        "metrics": [],
        "template": "auto",
        "template_kwargs": None,
        "batch_size": 4,
        "quantize": None,
        "precision": None,
        "device": "cpu",
        "sampling": Sampling(max_new_tokens=4),
    }
    return compare(**arguments | changes)


def plain_loss(model: PreTrainedModel, examples: list[Example], setting: Setting) -> float:
    """Return the mean loss of a labeled token from a model's full logits, row by row."""
    total, count = 0.0, 0
    mixed = setting.precision.endswith("mixed")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        for example in examples:
            logits = model(torch.tensor([example.ids])).logits[0, :-1].float()
            labels = torch.tensor(example.labels[1:])
            total += float(F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORE))
            count += int((labels != IGNORE).sum())
    return total / count


@pytest.mark.parametrize("name", SETTINGS)
def test_fit_compare_and_plain_transformers_measure_the_same_loss(
    name: str, tiny_folder: Path, run_with: Callable[[Setting], Path]
) -> None:
    setting = SETTINGS[name]
    run = run_with(setting)
    _, measured = read_losses(run / "metrics.csv")
    by_fit = [measured[0][1], min(loss for step, loss in measured if step)]
    result = measure(run)
    assert result.loss is not None
    assert [result.loss.base, result.loss.tuned] == pytest.approx(by_fit, abs=setting.tolerance)

    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    rows = [row for row in read(run / "validation.jsonl") if isinstance(row, Row)]
    examples = [encode(to_messages(row), tokenizer, MAX_LENGTH) for row in rows]
    assert any(example.cut for example in examples)
    assert result.loss.tokens == sum(x != IGNORE for row in examples for x in row.labels)
    dtype = PRECISIONS[setting.precision]
    quantized = {}
    if setting.quantize:
        quantized["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=setting.quantize,
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=dtype, **quantized)
    for layer in base.modules():
        if setting.quantize and hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False  # it would round the scales to bfloat16
    plain = [plain_loss(base, examples, setting)]
    tuned = PeftModel.from_pretrained(base, run / "adapter")
    plain.append(plain_loss(tuned.eval(), examples, setting))
    assert plain == pytest.approx(by_fit, abs=setting.tolerance)


def test_a_report_names_other_settings_and_asks_the_last_question_of_each_row(
    run_with: Callable[[Setting], Path],
) -> None:
    run = run_with(SETTINGS["B5: float32"])
    result = measure(run, precision="bf16-true", max_answers=3)
    assert {pair.question for pair in result.answers} == {"And then?"}
    report = verdict(result).text + " ".join(result.notes)
    assert "The run trained with precision 32-true; this comparison uses bf16-true." in report
    assert "The run measured" in report
    config = (run / "config.yaml").rename(run / "away")
    try:
        notes = measure(run).notes
    finally:
        config.rename(run / "config.yaml")
    assert any("config.yaml is missing" in note for note in notes)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, []),
        ({"precision": "32-true"}, ["precision bf16-mixed; this comparison uses 32-true"]),
        ({"quantize": "none"}, ["quantize nf4; this comparison uses none"]),
        ({"quantize": "nf4", "precision": "bf16-mixed"}, []),
    ],
)
def test_only_settings_that_differ_from_the_runs_are_named(
    given: dict[str, str], expected: list[str]
) -> None:
    trained = LoadSettings("bf16-mixed", "nf4", 96)
    used = trained.changed(given.get("precision"), given.get("quantize"))
    differences = used.differences(trained)
    assert len(differences) == len(expected)
    assert all(text in note for text, note in zip(expected, differences, strict=True))


@pytest.mark.parametrize(
    "text", ["", "[1]", "model: {}", "a: &a [*a]", "\xff", "model: {quantize: 1}\ndata: 2"]
)
def test_a_config_that_no_run_wrote_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert read_run_settings(run) is None
    run.metrics.touch()
    run.config.write_text(text, "latin-1")
    with pytest.raises(ConfigError, match=r"config\.yaml does not hold the settings of a run"):
        read_run_settings(run)
