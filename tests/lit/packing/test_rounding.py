"""What 8-bit layers do to other tokens is rounding, and hides nothing and looks like no leak."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from conftest import make_model
from transformers import PreTrainedModel

from data.types import Batch
from lit.packing.attention import PACKED
from lit.packing.hidden_states import hidden_states
from lit.packing.pack import pack
from lit.packing.probe import probe_batch
from lit.packing.rounding import rounded_alone
from lora.config import ConfigError
from lora.injection import quantize_model
from tests.families.model import enlarge
from tests.start_checks import check_causal


@pytest.fixture
def model() -> PreTrainedModel:
    """In 8 bits, with outliers in the input columns of a few tokens, as trained models have."""
    model = enlarge(make_model(hidden_size=64, intermediate_size=128, head_dim=16))
    quantize_model(model, "int8", torch.float32)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight *= 3
            layer.post_attention_layernorm.weight *= 3
    return model.eval()


@pytest.fixture
def batch(model: PreTrainedModel) -> Batch:
    return probe_batch(model.config, model.device)


@torch.no_grad()
@pytest.mark.parametrize("alone", [False, True])
def test_a_row_changes_how_others_are_rounded_unless_each_token_is_rounded_alone(
    model, batch, alone
):
    model.set_attn_implementation(PACKED)
    ids = batch.input_ids.clone()
    ids[:, 9:16] = ids.roll(12, 1)[:, 9:16]
    with rounded_alone(model) if alone else nullcontext():
        states, changed = (
            hidden_states(model, replace(batch, input_ids=x)) for x in (batch.input_ids, ids)
        )
    assert torch.equal(states[:, :9], changed[:, :9]) == alone


def test_a_model_in_8_bits_is_packed(model, batch):
    assert pack(model, batch) is None


def test_a_model_in_8_bits_is_not_taken_for_one_that_reads_ahead(model, batch):
    check_causal(model, batch.input_ids[:, :9])


def test_a_model_that_computes_nan_is_not_taken_for_one_that_reads_ahead(batch):
    model = make_model().eval()
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM computes NaN .* 32-true"):
        check_causal(model, batch.input_ids[:, :9])


def test_the_outliers_count_again_afterwards(model):
    layer = model.model.layers[0].self_attn.q_proj
    before = layer.state.threshold
    with rounded_alone(model):
        assert layer.state.threshold == 0
    assert layer.state.threshold == before > 0
