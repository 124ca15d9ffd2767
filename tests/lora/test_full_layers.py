"""Layers that train in full: embeddings and the output head."""

import peft
import pytest
import torch
from conftest import make_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from lora.config import ConfigError, LoRAConfig
from lora.full_layers import full_layers, tied_groups, untied_layers
from lora.injection import inject, merge, quantize_model
from lora.storage.adapter import load_adapter, save_adapter

WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
EMBEDDING = LoRAConfig(modules_to_save=["embed_tokens"])


def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=torch.arange(3, 14)[None], use_cache=False).logits


def make_tied() -> PreTrainedModel:
    """Return a small model whose embedding and output head are one matrix."""
    return make_model(**WIDE, tie_word_embeddings=True)


def test_an_embedding_that_is_also_the_head_trains_once_for_both():
    model = make_tied()
    inject(model, EMBEDDING)
    assert tied_groups(model) == [["model.embed_tokens", "lm_head"]]
    embedding, head = model.get_input_embeddings(), model.lm_head
    assert embedding.trained["weight"] is head.trained["weight"]
    with torch.no_grad():
        embedding.trained["weight"].add_(1)
    assert embedding.weight is not embedding.base.weight
    assert torch.equal(head.weight, embedding.weight)
    merge(model)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_an_embedding_apart_from_the_head_trains_alone():
    model = make_model(**WIDE)
    inject(model, EMBEDDING)
    assert [path for path, _ in full_layers(model)] == ["model.embed_tokens"]
    assert not tied_groups(model)


def test_full_layers_train_in_float32_over_a_half_precision_base():
    model = make_model(**WIDE).bfloat16()
    inject(model, LoRAConfig(modules_to_save=["embed_tokens", "lm_head"]))
    logits = model(input_ids=torch.arange(3, 14)[None], use_cache=False).logits
    logits.float().square().sum().backward()
    for _, layer in full_layers(model):
        trained = layer.trained["weight"]
        assert trained.dtype == trained.grad.dtype == torch.float32
        assert layer.weight.dtype == layer.base.weight.dtype == torch.bfloat16


def test_a_quantized_layer_cannot_train_in_full():
    model = make_model(**WIDE)
    quantize_model(model, "nf4", torch.float32)
    with pytest.raises(ConfigError, match="names down_proj, whose weight is quantized"):
        inject(model, LoRAConfig(modules_to_save=["down_proj"]))


@torch.no_grad()
@pytest.mark.parametrize("names", [["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_layers_that_peft_trained_apart_load_apart_and_stay_so_when_merged(names, tmp_path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=names)
    theirs = peft.get_peft_model(make_tied(), config).eval()
    for name, parameter in theirs.named_parameters():
        if "modules_to_save" in name:
            parameter.add_(torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    model = make_tied()
    assert not load_adapter(model, tmp_path).ensure_weight_tying
    assert [path.rpartition(".")[2] for path in untied_layers(model)] == names
    expected = logits(theirs)
    torch.testing.assert_close(logits(model), expected)
    save_adapter(model, tmp_path / "again", "some/model")
    load_adapter(again := make_tied(), tmp_path / "again")
    torch.testing.assert_close(logits(again), expected)
    merge(model).save_pretrained(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_equal_tensors_of_tied_layers_load_as_one_matrix(tmp_path):
    inject(model := make_tied(), EMBEDDING)
    model.lm_head.trained["weight"].add_(1)
    save_adapter(model, tmp_path, "some/model")
    load_adapter(again := make_tied(), tmp_path)
    assert tied_groups(again) == [["model.embed_tokens", "lm_head"]]
    assert not untied_layers(again)
