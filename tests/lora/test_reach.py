"""Which layers an adapter goes on: all that learn, and none that a model does not call."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import transformers
from mixed_families import MIXED, make_mixed
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from lora.config import PROJECTIONS, ConfigError, LoRAConfig
from lora.families.linear import is_linear
from lora.families.reach import READ_DIRECTLY
from lora.injection import inject, lora_layers
from lora.targets import barred_layers, linear_layers, match_targets
from tests.families.model import make_family

ATTENTION = set(PROJECTIONS[:4])
SEVEN = set(PROJECTIONS)
TARGETS: dict[str, set[str]] = {
    "llama": SEVEN,
    "gpt2": {"c_attn", "c_fc", "c_proj"},
    "falcon": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    "bloom": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    **dict.fromkeys(("mixtral", "qwen3_moe", "gpt_oss", "phimoe"), ATTENTION),
    **dict.fromkeys(("qwen2_moe", "llama4_text", "afmoe"), SEVEN),
    "jetmoe": {"kv_proj"},
    "mamba": {"in_proj"},
    "mamba2": {"in_proj"},
    "jamba": SEVEN | {"in_proj", "x_proj", "out_proj"},
    "granitemoehybrid": ATTENTION | {"in_proj", "input_linear", "output_linear"},
    "lfm2": {"q_proj", "k_proj", "v_proj", "out_proj", "in_proj", "w1", "w2", "w3"},
    "gemma3n_text": SEVEN
    | {"linear_left", "linear_right", "per_layer_input_gate", "per_layer_projection"}
    | {"per_layer_model_projection", "0", "1", "2"},
    "deepseek_v32": {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}
    | {"gate_proj", "up_proj", "down_proj"},
}
"""Last names of the layers that adapters go on by default."""
BARRED: dict[str, dict[str, str]] = {
    "phimoe": {"router": "PhimoeTopKRouter computes more than a linear layer"},
    "llama4_text": {"router": "Llama4Router computes more than a linear layer"},
    "mamba": dict.fromkeys(
        ("x_proj", "dt_proj", "mixer.out_proj"),
        "MambaMixer reads its weight without calling the layer",
    ),
    "mamba2": {"out_proj": "Mamba2Mixer reads its weight"},
    "jamba": {"dt_proj": "JambaMambaMixer reads its weight"},
    "granitemoehybrid": {"mamba.out_proj": "GraniteMoeHybridMambaLayer reads its weight"},
    "gemma3n_text": {"prediction_coefs": "reads", "altup.correction_coefs": "reads"},
    "deepseek_v32": {"wk": "DeepseekV32Indexer only chooses tokens", "indexer.wq_b": "which has"},
}
"""What an error says about a layer that no adapter can go on, by the name in the config."""
HARMLESS = {
    # Only with pretraining_tp above 1 and slow_but_exact.
    ("BloomAttention", "dense"),
    ("BloomMLP", "dense_4h_to_h"),
    # An output head, and a layer of models that classify sounds.
    ("Gemma4AssistantForCausalLM", "lm_head"),
    ("Gemma4UnifiedAssistantForCausalLM", "lm_head"),
    ("TDNNLayer", "kernel"),
}
"""Reads of a linear layer's weight that adapters need not fear."""


def last(paths: Iterator[str] | list[str]) -> set[str]:
    return {path.rpartition(".")[2] for path in paths}


@pytest.mark.parametrize("family", MIXED)
def test_by_default_an_adapter_goes_on_every_linear_layer_that_learns(family):
    model = make_mixed(family)
    linear = {
        path
        for path, layer in model.named_modules()
        if (isinstance(layer, nn.Linear) or is_linear(layer))
        and layer is not model.get_output_embeddings()
    }
    paths = inject(model, LoRAConfig(r=2))
    assert last(paths) == TARGETS[family]
    # What is left are routers and layers that are refused by name.
    routers = {path for path in linear if re.search(r"router|\.gate$|expert_gate", path)}
    assert linear - routers - barred_layers(model).keys() == set(paths) - routers == set(paths)
    model.train()
    ids = torch.randint(3, 320, (1, 11), generator=torch.Generator().manual_seed(0))
    model(input_ids=ids, use_cache=False).logits.square().mean().backward()
    assert all(layer.lora_B.grad.any() for _, layer in lora_layers(model))


@pytest.mark.parametrize(
    ("family", "routers"),
    [("llama", set()), ("afmoe", {"gate"}), ("qwen2_moe", {"shared_expert_gate"})],
)
def test_all_linear_adds_the_routers_that_are_linear_layers(family, routers):
    model = make_mixed(family, "meta")
    every, default = (set(match_targets(model, name)) for name in ("all-linear", "projections"))
    assert last(every - default) == routers
    assert default <= every
    # Routers are named, or come with all-linear; no other group has them.
    groups = set(match_targets(model, ["attention", "mlp"]))
    assert groups == default
    assert all(set(match_targets(model, name)) <= every - default for name in routers)


@pytest.mark.parametrize(
    ("family", "name", "why"),
    [(family, name, why) for family, names in BARRED.items() for name, why in names.items()],
)
def test_a_target_that_no_adapter_can_go_on_is_refused_with_the_reason(family, name, why):
    model = make_mixed(family, "meta")
    expected = (
        rf"^`target_modules` names {name}, and no adapter can go on \S+\.{name}: .*{why}.*\. "
        "Choose from .*_proj.*, or set `target_modules` to all-linear$"
    )
    with pytest.raises(ConfigError, match=expected):
        inject(
            model, LoRAConfig(target_modules=["in_proj" if "mamba" in family else "q_proj", name])
        )
    assert not any(lora_layers(model))


def test_a_name_of_some_layers_that_are_reached_is_refused_with_the_one_that_chooses_them():
    model = make_family("bart")
    with pytest.raises(ConfigError, match=r"encoder_attn.* Write self_attn.q_proj for the others$"):
        match_targets(model, "q_proj")
    chosen = match_targets(model, "self_attn.q_proj")
    assert chosen.keys() == {p for p in linear_layers(model) if p.endswith("q_proj")}


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ConfigError, match=r"^Sequential has no linear layer that an adapter can"):
        inject(nn.Sequential(nn.Embedding(4, 4), nn.LayerNorm(4)), LoRAConfig())


def test_every_weight_of_a_linear_layer_that_transformers_reads_is_in_the_table():
    families = {config.__module__.split(".")[-2] for config in MODEL_FOR_CAUSAL_LM_MAPPING}
    root = Path(transformers.__file__).parent / "models"
    found = {
        pair
        for family in sorted(families)
        for path in sorted((root / family).glob("modeling_*.py"))
        for pair in weights_read(path.read_text("utf-8"))
    }
    table = {(holder, name) for holder, names in READ_DIRECTLY.items() for name in names}
    assert found - HARMLESS <= table
    # The table has nothing that transformers does not have.
    assert table <= found


def weights_read(source: str) -> Iterator[tuple[str, str]]:
    """Yield class and name of each ``self.NAME = nn.Linear(…)`` whose weight its class reads."""
    for text in re.split(r"^class ", source, flags=re.MULTILINE)[1:]:
        # Reading its dtype or device is no computation.
        read = set(re.findall(r"self\.(\w+)\.weight\b(?!\.dtype|\.device)", text))
        linear = set(re.findall(r"self\.(\w+) = nn\.Linear\(", text))
        for name in linear & read:
            yield text.partition("(")[0], name
