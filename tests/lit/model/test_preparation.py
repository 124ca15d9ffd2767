"""The checks of an adapted model before training: every adapter is called."""

import pytest
import torch
from mixed_families import make_mixed
from torch import nn
from transformers import AutoConfig

from data.planning.batch import collate
from lit.model.architecture import describe_compression
from lit.model.preparation import use_checkpointing
from lit.model.silent_layers import check_reached
from lit.packing.probe import probe_examples
from lora.config import ConfigError, LoRAConfig
from lora.families import reach
from lora.injection import inject

BATCH = collate(probe_examples(320)[-1:])


@pytest.mark.parametrize("family", ["llama", "jamba", "granitemoehybrid", "gemma3n_text"])
def test_a_model_that_calls_every_adapter_passes_and_is_not_changed(family):
    model = make_mixed(family)
    inject(model, LoRAConfig(r=2, lora_dropout=0.5))
    before, state = (
        {name: v.clone() for name, v in model.state_dict().items()},
        torch.get_rng_state(),
    )
    check_reached(model, BATCH)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("family", "name", "layers"),
    [("mamba", "dt_proj", "2 of 4"), ("gemma3n_text", "correction_coefs", "2 of 31")],
)
def test_an_adapter_that_the_model_never_calls_in_training_is_refused(
    family, name, layers, monkeypatch
):
    # As a new family is, of which nothing is known here.
    monkeypatch.setattr(reach, "READ_DIRECTLY", {})
    model = make_mixed(family)
    targets = ["in_proj", name] if family == "mamba" else ["projections"]
    exclude = [] if family == "mamba" else ["prediction_coefs"]
    inject(model, LoRAConfig(r=2, target_modules=targets, exclude_modules=exclude))
    with pytest.raises(
        ConfigError,
        match=rf"^{layers} adapters are never reached, for example \S+\.{name}: \w+ForCausalLM "
        rf"does not call these layers\. Set `exclude_modules` to \[{name}\]$",
    ):
        check_reached(model, BATCH)


class Experts(nn.Module):
    """Two experts, of which only the second is called."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.experts[1](x)


def test_an_expert_that_gets_no_token_of_the_short_row_is_no_fault():
    model = make_mixed("llama")
    for block in model.model.layers:
        block.mlp = Experts()
    assert len(inject(model, LoRAConfig(r=2))) == 2 * (4 + 2)
    check_reached(model, BATCH)


@pytest.mark.parametrize(
    ("longest", "said"),
    [(128, "compress every 128 tokens, and the longest row has 128"), (129, ""), (None, "")],
)
def test_compressors_that_no_row_is_long_enough_for_are_said(longest, said):
    kinds = ["compressed_sparse_attention", "heavily_compressed_attention"]
    config = AutoConfig.for_model("deepseek_v4", num_hidden_layers=2, layer_types=kinds)
    assert (said in describe_compression(config, longest)) is True
    assert bool(describe_compression(config, longest)) is bool(said)
    assert describe_compression(AutoConfig.for_model("llama"), 1) == ""


def test_checkpointing_on_a_type_that_cannot_is_one_line():
    use_checkpointing(make_mixed("llama", "meta"))
    with pytest.raises(
        ConfigError, match=r"^JetMoeForCausalLM .* model.gradient_checkpointing to false"
    ):
        use_checkpointing(make_mixed("jetmoe", "meta"))
