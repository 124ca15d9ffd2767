"""What a command is doing: a line before each work that takes long, in a pipe too."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from lit import chat, compare, export, fit, merge
from lit.model.base import load_base
from lora.config import LoRAConfig
from lora.injection import inject, lora_layers
from lora.storage.adapter import save_adapter

ROWS = [
    {"prompt": f"How warm must bed {i} be?", "response": f"{50 + i} degrees."} for i in range(8)
]
PHASES: dict[str, list[str]] = {
    "fit": [
        "data   reading the rows of ",
        "plan   ",
        "base   measuring its loss on 2 validation rows …",
        "model  loading ",
        "       sampling 2 answers for TensorBoard …",
        "step 1/",
        "run    ",
        "wrote  ",
        "next   ",
    ],
    "merge": [
        "merge  loading the model …",
        "merge  writing the merged weights …",
        "merge  loading them again to compare …",
        "wrote  ",
    ],
    "export peft": [
        "export loading the model …",
        "export reading the adapter back to compare …",
        "wrote  ",
    ],
    "export merged": ["merge  loading the model …", "merge  writing ", "wrote  "],
    "export gguf": ["export loading the model …", "wrote  "],
    "compare": [
        "loading the model in 32-true …",
        "losses: 8 under each of the two models …",
        "losses of general text: ",
        "answers: 2 under each of the two models …",
        "wrote  ",
    ],
    "chat": ["loading the model …"],
}
"""How the lines begin that each command prints, in order."""


@pytest.fixture(scope="module")
def adapter(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = load_base(str(tiny_folder))
    inject(model, LoRAConfig(r=2))
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    folder = save_adapter(model, tmp_path_factory.mktemp("run") / "adapter", str(tiny_folder))
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("command", PHASES)
def test_a_command_says_what_it_does_before_it_takes_long(
    command: str,
    adapter: Path,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows, out = tmp_path / "rows.jsonl", str(tmp_path / "out")
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    name, kind = ["--adapter", str(adapter)], command.removeprefix("export ")
    training = ["--model.base", str(tiny_folder), "--data.path", str(rows), "--output_dir", out]
    training += ["--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"]
    brief = ["--answers", "2", "--max_new_tokens", "2", "--output_dir", out, "--device", "cpu"]
    run: Callable[[], int] = {
        "fit": lambda: fit.main([*training, "--data.val_fraction", "0.25"]),
        "merge": lambda: merge.main([*name, "--output_dir", out]),
        "compare": lambda: compare.main([*name, "--data", str(rows), *brief]),
        "chat": lambda: chat.main([*name, "--max_new_tokens", "2"]),
    }.get(command, lambda: export.main([*name, "--format", kind, "--output", out]))
    # One stream, so that the order of notes and results is kept.
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("Why?\n"))
    monkeypatch.setattr(sys, "stdout", printed)
    monkeypatch.setattr(sys, "stderr", printed)
    assert run() == 0
    lines = iter(printed.getvalue().splitlines())
    for phase in PHASES[command]:
        assert any(line.startswith(phase) for line in lines), printed.getvalue()
