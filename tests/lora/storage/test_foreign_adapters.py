"""Adapters that real PEFT made and that do not load: each cause has its own message."""

from pathlib import Path
from typing import NamedTuple

import peft
import pytest
from conftest import make_model
from torch import nn
from transformers import PreTrainedModel

from lora.injection import lora_layers
from lora.storage.adapter import AdapterError, load_adapter

HEAD, EMBEDDING = {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens"]}
BOTH = {"modules_to_save": ["embed_tokens", "lm_head"]}
TIED = {"tie_word_embeddings": True}


class Convolved(nn.Module):
    """A model with a linear layer and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj, self.conv1d = nn.Linear(8, 8), nn.Conv1d(8, 8, 3)


class Foreign(NamedTuple):
    """An adapter of PEFT: its settings, the model, and what is said of it."""

    said: list[str]
    settings: dict
    model: dict | None = None
    tokens: int | None = None
    """The number of tokens to which the vocabulary was resized."""


FOREIGN = {
    "a LoRA on the head": Foreign(
        ["kind of layer that is not supported: lm_head, the output head"],
        {"target_modules": ["q_proj", "lm_head"]},
    ),
    "a LoRA on the embedding": Foreign(
        ["kind of layer that is not supported: model.embed_tokens, an embedding"],
        {"target_modules": ["q_proj", "embed_tokens"]},
    ),
    "a LoRA on tied layers": Foreign(
        ["kind of layer that is not supported: model.embed_tokens, an embedding"],
        {"target_modules": ["q_proj", "lm_head"], "ensure_weight_tying": True},
        TIED,
    ),
    "a larger embedding": Foreign(
        ["grew: model.embed_tokens has 330", "320"], EMBEDDING, None, 330
    ),
    "a larger head": Foreign(["grew: lm_head has 330 tokens", "320 in this"], HEAD, None, 330),
    "both larger": Foreign(["grew: ", "resize_token_embeddings(330)"], BOTH, None, 330),
    "a larger tied matrix": Foreign(["grew: model.embed_tokens has 330"], EMBEDDING, TIED, 330),
    "fewer tokens": Foreign(["shrank: lm_head has 300 tokens", "320 in this"], HEAD, None, 300),
    "a wider model": Foreign(["made for another model. Give the base"], {}, {"hidden_size": 64}),
    "a deeper model": Foreign(["made for another model. Give"], {}, {"num_hidden_layers": 3}),
    "another family": Foreign(
        ["made for another model. Give", "no linear layer is named c_attn"],
        {"target_modules": ["c_attn"], "fan_in_fan_out": True},
        {"family": "gpt2"},
    ),
}


def made_by_peft(model: nn.Module, folder: Path, **settings: object) -> Path:
    theirs = peft.get_peft_model(model, peft.LoraConfig(**({"r": 4} | settings)))
    theirs.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("case", FOREIGN)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapter_of_peft_that_does_not_fit_is_refused_with_its_cause(
    case: str, tmp_path: Path
) -> None:
    said, settings, changes, tokens = FOREIGN[case]
    theirs: PreTrainedModel = make_model(**(changes or {}))
    if tokens:
        theirs.resize_token_embeddings(tokens)
    made_by_peft(theirs, tmp_path, **({"target_modules": ["q_proj"]} | settings))
    model = make_model(**(TIED if changes == TIED else {}))
    with pytest.raises(AdapterError) as caught:
        load_adapter(model, tmp_path)
    assert all(text in str(caught.value) for text in said), caught.value
    causes = ("another model", "not supported", "vocabulary")
    assert sum(cause in str(caught.value) for cause in causes) == 1
    assert not any(lora_layers(model))


@pytest.mark.parametrize("targets", [["in_proj", "conv1d"], ["conv1d"]])
def test_a_convolution_is_a_kind_of_layer_that_is_not_supported(
    targets: list[str], tmp_path: Path
) -> None:
    made_by_peft(Convolved(), tmp_path, target_modules=targets)
    with pytest.raises(AdapterError, match=r"not supported: conv1d, a convolution \(Conv1d\)"):
        load_adapter(Convolved(), tmp_path)


def test_peft_saves_a_larger_embedding_without_being_asked(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path / "base")
    model.name_or_path = str(tmp_path / "base")
    model.resize_token_embeddings(330)
    adapter = made_by_peft(model, tmp_path / "adapter", target_modules=["q_proj"])
    base = str(tmp_path / "base")
    with pytest.raises(AdapterError, match=r"grew: .* 330 tokens in the adapter and 320 in this"):
        load_adapter(make_model(), adapter)
    other = made_by_peft(make_model(hidden_size=64), tmp_path / "other", target_modules=["q_proj"])
    text = (other / "adapter_config.json").read_text()
    (other / "adapter_config.json").write_text(
        text.replace('"base_model_name_or_path": null', f'"base_model_name_or_path": "{base}"')
    )
    with pytest.raises(AdapterError, match="the base that it was trained on") as caught:
        load_adapter(make_model(), other)
    assert str(caught.value).endswith(base)
