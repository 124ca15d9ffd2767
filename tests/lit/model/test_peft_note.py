"""Which adapters PEFT puts on other layers: the note is given where real PEFT differs."""

import warnings

import peft
import pytest
import torch
from conftest import SMALL
from mixed_families import EXPERTS, LATENT, MIXED, make_mixed
from torch import nn

from lit.model.peft_note import describe_misreading, misread_by_peft
from lit.run.card import write_card
from lora.config import LoRAConfig
from lora.injection import inject, lora_layers
from lora.storage.adapter import save_adapter

FUSED = SMALL | EXPERTS | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1}
MORE = {
    "glm4_moe": FUSED,
    "exaone_moe": FUSED | {"mlp_layer_types": ["dense", "sparse"]},
    "deepseek_v3": FUSED | LATENT,
    "qwen3_next": FUSED
    | {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8}
    | {"linear_value_head_dim": 8, "shared_expert_intermediate_size": 16},
}
MISREAD = {"afmoe", "deepseek_v32", *MORE}
IDS = torch.randint(3, 320, (2, 11), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("family", sorted(MIXED.keys() | MORE.keys()))
def test_the_note_is_given_exactly_where_peft_computes_something_else(
    family, tmp_path, monkeypatch
):
    monkeypatch.setattr("mixed_families.MIXED", MIXED | MORE)
    model, base = make_mixed(family), make_mixed(family)
    inject(model, LoRAConfig(r=2))
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.3)
    save_adapter(model, tmp_path, base="some/model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    equal = torch.allclose(logits(theirs), logits(model), atol=1e-4)
    assert equal is (family not in MISREAD)
    assert equal is (not misread_by_peft(model))
    assert describe_misreading(model) == (
        ""
        if equal
        else f"PEFT 0.21 reads down_proj, gate_proj, up_proj of {family} as other layers, and "
        "computes something else with this adapter. Merge it first: python -m lit.merge"
    )


@pytest.mark.parametrize("family", ["glm4_moe", "qwen3_next"])
def test_an_adapter_on_attention_alone_needs_no_note(family, monkeypatch):
    monkeypatch.setattr("mixed_families.MIXED", MORE)
    model = make_mixed(family, "meta")
    inject(model, LoRAConfig(target_modules="attention"))
    assert misread_by_peft(model) == []


@pytest.mark.parametrize("note", ["", "PEFT reads up_proj as another layer. Merge it first: M"])
def test_the_model_card_shows_peft_only_if_peft_computes_the_same(note, tmp_path):
    numbers = {"base_loss": 2.0, "loss": 1.0, "rows": 9, "val_rows": 1, "r": 8, "lora_alpha": 16}
    write_card(
        tmp_path, "b", data="d", lora_dropout=0.0, targets="up_proj", step=3, note=note, **numbers
    )
    text = (tmp_path / "README.md").read_text("utf-8")
    assert ("PeftModel.from_pretrained" in text) is (note == "")
    assert f"{note} --adapter path/to/this/folder" in text or not note
