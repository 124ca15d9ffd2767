"""The model and the tokenizer of an adapter's folder."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lit.model.base import load_base
from lit.model.tuned import chosen_quantization, load_tuned
from lora.config import ConfigError, LoRAConfig
from lora.injection import inject, lora_layers
from lora.storage.adapter import save_adapter

TEMPLATE = "{% for message in messages %}{{ message['content'] }}<|im_end|>{% endfor %}"


@pytest.fixture
def adapter(tiny_folder: Path, tmp_path: Path) -> Path:
    """An adapter's folder without a tokenizer, as other tools write it."""
    model = load_base(str(tiny_folder))
    inject(model, LoRAConfig(r=4))
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B)
    return save_adapter(model, tmp_path / "adapter", str(tiny_folder))


def test_the_template_of_training_is_used_and_not_that_of_the_base(
    adapter: Path, tiny_folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(adapter)
    assert load_tuned(adapter)[1].chat_template == TEMPLATE
    assert load_tuned(adapter, str(tiny_folder))[1].chat_template == TEMPLATE


def test_without_a_tokenizer_in_the_folder_the_one_of_the_base_is_used(
    adapter: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    assert load_tuned(adapter)[1].chat_template == tokenizer.chat_template


def test_the_model_has_the_adapter_and_is_in_eval_mode(adapter: Path) -> None:
    model, _ = load_tuned(adapter)
    assert not model.training
    assert all(layer.lora_B.any() for _, layer in lora_layers(model))


@pytest.mark.parametrize(
    ("trained", "asked", "chosen"),
    [
        ("nf4", None, "nf4"),
        ("nf4", "none", None),
        ("nf4", "int8", "int8"),
        (None, None, None),
        (None, "fp4", "fp4"),
    ],
)
def test_a_base_is_quantized_as_asked_or_else_as_in_training(
    trained: str | None,
    asked: str | None,
    chosen: str | None,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    model = load_base(str(tiny_folder))
    inject(model, LoRAConfig(r=4))
    save_adapter(model, tmp_path, str(tiny_folder), None, trained)
    assert chosen_quantization(tmp_path, asked) == chosen
    said = "model  the base is loaded in nf4, as when the adapter was trained; --quantize none"
    assert (said in capsys.readouterr().err) == (chosen == "nf4")
    assert chosen_quantization(None, asked) == (None if asked == "none" else asked)


def test_a_tokenizer_with_more_tokens_than_the_base_is_refused_with_both_numbers(
    adapter: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.add_tokens([f"<new{i}>" for i in range(330 - len(tokenizer))])
    tokenizer.save_pretrained(adapter)
    with pytest.raises(ConfigError, match=r"grew: .* number 329, and the embedding .* 320 rows"):
        load_tuned(adapter)
