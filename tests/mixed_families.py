"""Small models of families with more than plain linear layers: experts, routers, recurrences."""

from typing import Any

import torch
from conftest import GPT2, IDS, SMALL
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

EXPERTS = {
    "moe_intermediate_size": 16,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
MAMBA = {"state_size": 8, "time_step_rank": 4, "expand": 2}
MAMBA_HEADS = {"mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "num_key_value_heads": 4,
}
HYBRID = {"layer_types": ["mamba", "attention"], "shared_intermediate_size": 16}
MIXED: dict[str, dict[str, Any]] = {
    "llama": SMALL,
    "gpt2": GPT2 | IDS,
    "falcon": {name: value for name, value in SMALL.items() if name != "head_dim"},
    "bloom": {"vocab_size": 320, "hidden_size": 32, "n_layer": 2, "n_head": 4, **IDS},
    "mixtral": SMALL | EXPERTS,
    "qwen2_moe": SMALL | EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": SMALL | EXPERTS,
    "gpt_oss": SMALL | EXPERTS,
    "phimoe": SMALL | EXPERTS,
    "llama4_text": SMALL | EXPERTS | {"intermediate_size_mlp": 48},
    "afmoe": SMALL | EXPERTS,
    "jetmoe": SMALL | EXPERTS | {"kv_channels": 8},
    "mamba": SMALL | MAMBA,
    "mamba2": SMALL | {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1},
    "jamba": SMALL | EXPERTS | {"mamba_d_state": 8, "mamba_dt_rank": 4, "attn_layer_offset": 1},
    "granitemoehybrid": SMALL | EXPERTS | MAMBA_HEADS | HYBRID,
    "lfm2": SMALL | {"layer_types": ["conv", "full_attention"]},
    "gemma3n_text": SMALL
    | {
        "layer_types": ["sliding_attention", "full_attention"],
        "num_kv_shared_layers": 0,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 320,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0, 0.0],
    },
    "deepseek_v32": SMALL | EXPERTS | LATENT | {"index_n_heads": 2, "index_head_dim": 16},
}
"""Settings of each family's small model."""


def make_mixed(family: str, device: str = "cpu") -> PreTrainedModel:
    """Return a two-layer random model of a family, in eval mode, the same at each call."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **MIXED[family])
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            # Some families start weights at zero, where no gradient passes.
            parameter.data += torch.randn_like(parameter) * 0.02
    return model.eval()
