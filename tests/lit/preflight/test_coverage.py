"""What an adapter leaves as it is, by kind and share; the kinds are compared with names."""

import re

import pytest
from mixed_families import MIXED, make_mixed

from lit.preflight.coverage import describe_not_adapted, shares_not_adapted
from lora.config import LoRAConfig
from lora.injection import inject

KINDS = {
    "norms": r"norm|ln_",
    "embeddings": r"embed|wte|wpe",
    "output head": r"lm_head",
    "experts": r"\.experts\.|moe\.(in|out)put_linear",
    "routers": r"router|\.gate\.|expert_gate",
    "convolutions": r"conv1d|\.conv\.conv",
}
"""Names of each kind of parameter in these families; the rest is linear, or of another kind."""
NAMED = {
    "llama": {},
    "mixtral": {"experts", "routers"},
    "qwen3_moe": {"experts", "routers"},
    "gpt_oss": {"experts", "routers"},
    "phimoe": {"experts", "routers"},
    "lfm2": {"convolutions"},
    "granitemoehybrid": {"experts", "routers", "convolutions", "layers that no adapter reaches"},
    "mamba": {"convolutions", "layers that no adapter reaches"},
}
"""Kinds that are said of each family, besides other weights and embeddings, head and norms."""


@pytest.mark.parametrize("family", NAMED)
def test_each_kind_that_is_left_has_the_share_of_the_parameters_with_its_names(family):
    model = make_mixed(family, "meta")
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    paths = inject(model, LoRAConfig(r=2))
    shares = shares_not_adapted(model)
    total = sum(sizes.values())
    adapted = sum(size for name, size in sizes.items() if name.rpartition(".")[0] in paths)
    assert sum(shares.values()) + adapted / total == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    usual = {"embeddings", "output head", "norms", "other weights"}
    assert shares.keys() - usual == set(NAMED[family])
    for kind in shares.keys() & KINDS.keys():
        first = [
            size
            for name, size in sizes.items()
            if name.rpartition(".")[0] not in paths
            and next((k for k, pattern in KINDS.items() if re.search(pattern, name)), "") == kind
        ]
        assert shares[kind] == pytest.approx(sum(first) / total), kind


@pytest.mark.parametrize("family", MIXED)
def test_a_model_without_weights_has_the_same_shares(family):
    shares = []
    for device in ("meta", "cpu"):
        model = make_mixed(family, device)
        inject(model, LoRAConfig(r=2))
        shares.append(shares_not_adapted(model))
    assert shares[0] == shares[1]


@pytest.mark.parametrize(
    ("family", "settings", "text"),
    [
        ("llama", {}, ""),
        ("gpt2", {}, ""),
        (
            "mixtral",
            {},
            "not adapted, of the base's parameters: experts 58%, routers <1%; embeddings, output "
            "head and norms 32%",
        ),
        (
            "llama",
            {"target_modules": "attention", "modules_to_save": ["embed_tokens"]},
            "not adapted, of the base's parameters: linear layers that are not targets 26%; "
            "embeddings, output head and norms 29%",
        ),
    ],
)
def test_a_line_is_said_if_more_than_embeddings_head_and_norms_is_left(family, settings, text):
    model = make_mixed(family)
    inject(model, LoRAConfig(**settings))
    assert describe_not_adapted(shares_not_adapted(model)) == text
