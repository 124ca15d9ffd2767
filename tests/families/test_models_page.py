"""docs/models.md says of each model type what becomes of it."""

import re
import warnings

import pytest
import torch
from transformers import AutoConfig

from lit.model.architecture import skeleton
from lit.model.base import quiet
from lit.preflight.estimate import estimate_model_memory
from lit.train.module import LoRAModule
from lora.config import LoRAConfig
from tests.families.page import PAGE, line
from tests.families.record import Record, every, record
from tests.families.table import FAMILIES

FAST = (
    *("qwen2", "gpt2", "gemma3_text", "cpmant", "afmoe", "jetmoe", "gpt_oss", "lfm2", "mamba"),
    *("modernbert-decoder", "mistral3", "cohere2_vision"),
)
"""A dozen types whose verdicts are of each kind, and fast."""
ROWS = {
    row.split(" | ")[0].removeprefix("| "): row
    for row in PAGE.read_text("utf-8").splitlines(keepends=True)
    if row.startswith("| ")
}


def test_the_page_has_every_type_and_none_is_wrong():
    assert set(every()) <= ROWS.keys()
    assert len(every()) >= 100
    verdicts = [ROWS[name].split(" | ")[1] for name in every()]
    known = r"right(, row by row)?|in part: .+|refused: .+"
    assert [text for text in verdicts if not re.fullmatch(known, text)] == []


@pytest.mark.parametrize("name", FAST)
def test_a_type_still_is_what_the_page_says(name: str):
    quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert line(record(name)) == ROWS[name]


def test_a_fault_is_the_verdict_whatever_else_is_right():
    assert Record("x", faults=["a"], refused="b", lacks=["c"]).verdict == "wrong: a"


@pytest.mark.parametrize(
    ("name", "function", "verdict"),
    [
        ("afmoe", "describe_misreading", "wrong: PEFT cannot use the adapter"),
        ("llama", "load_adapter", "wrong: the saved adapter gives other logits"),
    ],
)
def test_what_is_not_said_or_not_done_is_found(
    name: str, function: str, verdict: str, monkeypatch: pytest.MonkeyPatch
):
    quiet()
    monkeypatch.setattr(f"tests.families.record.{function}", lambda *_: "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert record(name).verdict.startswith(verdict)


def test_the_memory_of_a_type_whose_config_must_name_a_token_is_estimated():
    changes = FAMILIES["modernbert-decoder"].changes
    config = AutoConfig.for_model("modernbert-decoder", **changes)
    module, cpu = LoRAModule("base", LoRAConfig()), torch.device("cpu")
    model = skeleton(config, "base", torch.float32)
    assert sum(estimate_model_memory(model, module, [9, 7], 8, cpu).parts.values()) > 0
