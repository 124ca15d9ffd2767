"""What every kind of adapter keeps to, on dense and on quantized bases."""

import json
from collections.abc import Iterator

import peft
import pytest
import torch
from conftest import ADAPTERS, make_model
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit.model.embedding_noise import EmbeddingNoise
from lora.config import PROJECTIONS, ConfigError, LoRAConfig
from lora.full_layers import full_layers, tied_groups
from lora.inject import (
    VARIANTS,
    adapters_disabled,
    count_parameters,
    eject,
    inject,
    lora_layers,
    merge,
    quantize_model,
    trainable_parameters,
)
from lora.layer import LoRALinear
from lora.optimizer import parameter_groups
from lora.storage.adapter import load_adapter, save_adapter
from lora.variants.dora import DoRALinear
from lora.variants.pissa import PiSSALinear

IDS = torch.randint(3, 320, (2, 11), generator=torch.Generator().manual_seed(0))
WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
BASES = {"dense": None, "nf4": "nf4", "int8": "int8"}
over_kinds = pytest.mark.parametrize("kind", ADAPTERS)
over_bases = pytest.mark.parametrize("base", BASES)


def make_base(kind: str, base: str = "dense") -> PreTrainedModel:
    """A small model without adapters, in train mode, as kept in 4 bits or 8 if it is to be."""
    model = make_model(**WIDE, **(ADAPTERS[kind].model or {}))
    if BASES[base]:
        quantize_model(model, BASES[base], torch.float32)
    # On a CPU bitsandbytes computes int8 exactly in training only.
    return model.train()


def make_tuned(kind: str, base: str = "dense", loud: bool = True, **settings) -> PreTrainedModel:
    """A small model with adapters, all of whose tensors are moved unless it is to be silent."""
    model = make_base(kind, base)
    torch.manual_seed(0)
    settings = {"r": 4, "target_modules": "all-linear"} | ADAPTERS[kind].ours | settings
    inject(model, LoRAConfig(**settings))
    if loud:
        with torch.no_grad():
            for parameter in trainable_parameters(model).values():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.train()


def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, use_cache=False).logits


def test_every_variant_is_in_the_table():
    assert {kind.ours.get("variant", "lora") for kind in ADAPTERS.values()} == set(VARIANTS)


@over_kinds
@over_bases
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_new_adapter_changes_no_bit(kind, base, dropout):
    model = make_tuned(kind, base, loud=False, lora_dropout=dropout)
    assert torch.equal(logits(model), logits(make_base(kind, base)))


@over_kinds
@over_bases
def test_gradients_reach_all_of_the_adapter_and_nothing_else(kind, base):
    model = make_tuned(kind, base)
    logits(model).square().sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == set(trainable_parameters(model))
    inside = {f"{path}.{name}" for path, layer in lora_layers(model) for name, _ in own(layer)}
    assert all(name in inside or ".trained." in name for name in moved)


def own(layer: LoRALinear) -> Iterator[tuple[str, nn.Parameter]]:
    return layer.named_parameters(recurse=False)


@over_kinds
@over_bases
@torch.no_grad()
def test_a_merged_model_is_plain_and_says_the_same(kind, base):
    model = make_tuned(kind, base)
    before, paths = logits(model), [path for path, _ in lora_layers(model)]
    assert (before - logits(make_base(kind, base))).abs().max() > 0.01
    merge(model)
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=1e-4)
    plain = make_model(**WIDE, **(ADAPTERS[kind].model or {}))
    if base == "dense":
        assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(type(model.get_submodule(path)) is nn.Linear for path in paths)
    assert (
        count_parameters(model).total == count_parameters(plain).total
    )  # tied weights are tied still


@over_kinds
@over_bases
@torch.no_grad()
def test_disabled_and_ejected_it_is_the_base_bit_for_bit(kind, base):
    model = make_tuned(kind, base)
    before, plain = logits(model), logits(make_base(kind, base))
    with adapters_disabled(model):
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), before)
    assert torch.equal(logits(eject(model)), plain)
    assert not [*lora_layers(model), *full_layers(model)]


@over_kinds
@over_bases
@torch.no_grad()
def test_a_saved_adapter_loads_to_the_same_logits(kind, base, tmp_path):
    model, again = make_tuned(kind, base), make_base(kind, base)
    config = load_adapter(again, save_adapter(model, tmp_path / "one", base="some/model"))
    torch.testing.assert_close(logits(again.train()), logits(model), atol=1e-5, rtol=1e-5)
    assert not config.use_rslora
    assert not config.rank_pattern
    # What is read and saved again is what was read: nothing drifts.
    save_adapter(again, tmp_path / "two", base="some/model")
    files = [path.name for path in (tmp_path / "one").iterdir()]
    assert len(files) == 2
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@over_kinds
@torch.no_grad()
def test_peft_computes_the_same_from_what_is_saved(kind, tmp_path):
    model = make_tuned(kind)
    save_adapter(model, tmp_path, base="some/model")
    theirs = peft.PeftModel.from_pretrained(make_base(kind), tmp_path)
    torch.testing.assert_close(logits(theirs.eval()), logits(model.eval()), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in ADAPTERS if kind != "pissa"])
@torch.no_grad()
def test_the_same_is_computed_from_what_peft_saves(kind, tmp_path):
    config = peft.LoraConfig(r=4, target_modules=[*PROJECTIONS], **ADAPTERS[kind].theirs)
    theirs = peft.get_peft_model(make_base(kind), config)
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    theirs.save_pretrained(tmp_path)
    ours = make_base(kind)
    load_adapter(ours, tmp_path)
    torch.testing.assert_close(logits(ours.eval()), logits(theirs.eval()), atol=2e-5, rtol=1e-5)
    assert (logits(ours) - logits(make_base(kind).eval())).abs().max() > 0.01


@torch.no_grad()
def test_peft_s_own_pissa_loads_as_it_says_it_must_be_saved(tmp_path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    theirs = peft.get_peft_model(make_base("pissa"), config)
    theirs.peft_config["default"].init_lora_weights = True
    theirs.save_pretrained(tmp_path / "start")
    theirs.peft_config["default"].init_lora_weights = "pissa"
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    theirs.save_pretrained(
        tmp_path / "difference", path_initial_model_for_weight_conversion=tmp_path / "start"
    )
    ours = make_base("pissa")
    assert load_adapter(ours, tmp_path / "difference").r == 8
    torch.testing.assert_close(logits(ours.eval()), logits(theirs.eval()), atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_two_matrices_do_not_load_into_a_tied_one(tmp_path):
    names = ["embed_tokens", "lm_head"]
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=names)
    theirs = peft.get_peft_model(make_base("tied embedding"), config)
    theirs.save_pretrained(tmp_path / "equal")
    load_adapter(make_base("tied embedding"), tmp_path / "equal")
    theirs.base_model.model.lm_head.modules_to_save["default"].weight[0, 0] += 1
    theirs.save_pretrained(tmp_path / "apart")
    model = make_base("tied embedding")
    with pytest.raises(ConfigError, match=r"lm_head.weight differs from .*embed_tokens"):
        load_adapter(model, tmp_path / "apart")
    assert not [*lora_layers(model), *full_layers(model)]
    load_adapter(make_base("whole head"), tmp_path / "apart")


@over_kinds
def test_the_file_has_one_rank_one_whole_alpha_and_no_patterns(kind, tmp_path):

    save_adapter(make_tuned(kind), tmp_path, base="some/model")
    words = json.loads((tmp_path / "adapter_config.json").read_text())
    assert isinstance(words["lora_alpha"], int)
    assert not words["use_rslora"]
    assert not words["rank_pattern"]
    assert not words["alpha_pattern"]
    weights = load_file(tmp_path / "adapter_model.safetensors")
    ranks = {w.shape[0] for name, w in weights.items() if name.endswith("lora_A.weight")}
    assert ranks == {words["r"]}
    assert words["r"] == {"pissa": 8, "patterns": 6, "patterns, rslora": 6}.get(kind, 4)


def test_dora_s_gain_is_the_magnitude_over_the_length_of_the_rows():
    layer = make_tuned("dora").model.layers[0].mlp.up_proj
    assert isinstance(layer, DoRALinear)
    weight = layer.base.weight + layer.config.scale * layer.lora_B @ layer.lora_A
    torch.testing.assert_close(layer.gain(), layer.magnitude / weight.norm(dim=1))
    torch.testing.assert_close(layer.merged().norm(dim=1), layer.magnitude.abs())


def test_a_row_of_zeros_stays_finite_in_dora():
    base = nn.Linear(6, 10)
    nn.init.zeros_(base.weight)
    layer, x = DoRALinear(base, LoRAConfig(r=2)), torch.randn(3, 6)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(y, base(x))
    assert all(p.grad.isfinite().all() for _, p in own(layer))


@pytest.mark.parametrize("shape", [(12, 9), (9, 12), (10, 10)])
def test_pissa_begins_with_the_best_fit_of_its_rank(shape):
    layer = PiSSALinear(nn.Linear(*shape[::-1]), LoRAConfig(r=3, lora_alpha=7))
    rest = layer.base.weight - layer.config.scale * layer.lora_B @ layer.lora_A
    lengths = torch.linalg.svdvals(layer.base.weight)
    torch.testing.assert_close(torch.linalg.svdvals(rest)[: min(shape) - 3], lengths[3:])
    assert layer.lora_A.is_contiguous()
    assert layer.lora_B.is_contiguous()


def test_pissa_refuses_more_directions_than_there_are():
    with pytest.raises(ConfigError, match="r is 7, but a layer of \\(10, 6\\) has 6 singular"):
        PiSSALinear(nn.Linear(6, 10), LoRAConfig(r=7))
    model = make_base("pissa")  # whose key and value projections have 32 rows
    with pytest.raises(ConfigError, match="32 singular"):
        inject(model, LoRAConfig(r=33, variant="pissa"))
    assert not any(lora_layers(model))


def test_a_tied_embedding_comes_with_the_head_and_is_said():
    model = make_tuned("tied embedding")
    assert tied_groups(model) == [["model.embed_tokens", "lm_head"]]
    assert model.get_input_embeddings().weight is not model.get_input_embeddings().base.weight
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    assert not tied_groups(make_tuned("whole embedding"))


def test_whole_layers_train_float32_masters_over_a_half_precision_base():
    model = make_model(**WIDE).bfloat16()
    inject(model, LoRAConfig(modules_to_save=["embed_tokens", "lm_head"]))
    logits(model).float().square().sum().backward()
    for _, layer in full_layers(model):
        master = layer.trained["weight"]
        assert master.dtype == master.grad.dtype == torch.float32
        assert layer.weight.dtype == layer.base.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modules_to_save": ["score"]}, "no layer is named score; this model has .*embed_tokens"),
        ({"rank_pattern": {"query": 4}}, "rank_pattern names query.*there are .*q_proj"),
        ({"alpha_pattern": {"lm_head": 4}}, "alpha_pattern names lm_head"),
        ({"layers_to_transform": [2]}, "there are blocks 0 to 1"),
    ],
)
def test_a_setting_that_means_nothing_here_is_refused(settings, message):
    model = make_base("lora")
    with pytest.raises(ConfigError, match=message):
        inject(model, LoRAConfig(**settings))
    assert all(p.requires_grad for p in model.parameters())


def test_a_quantised_layer_does_not_train_whole():
    with pytest.raises(ConfigError, match="down_proj, whose weight is quantized"):
        inject(make_base("lora", "nf4"), LoRAConfig(modules_to_save=["down_proj"]))


def test_a_pattern_rules_its_layers_and_the_first_of_two_counts():
    names = {"layers.1.mlp.up_proj": 7, "up_proj": 6, "self_attn.q_proj": 2}
    model = make_model(**WIDE)
    inject(model, LoRAConfig(r=4, rank_pattern=names, alpha_pattern={"o_proj": 1}))
    ranks = {path.partition("layers.")[2]: layer for path, layer in lora_layers(model)}
    assert ranks["1.mlp.up_proj"].lora_A.shape[0] == 7
    assert ranks["0.mlp.up_proj"].lora_A.shape[0] == 6
    assert ranks["0.self_attn.q_proj"].lora_B.shape[1] == 2
    assert ranks["0.self_attn.o_proj"].config.scale == 1 / 4
    assert ranks["0.self_attn.v_proj"].config.scale == 16 / 4


@over_kinds
def test_decay_pulls_only_what_is_the_base_at_zero(kind):
    model = make_tuned(kind)
    names = {id(p): name for name, p in trainable_parameters(model).items()}
    groups = parameter_groups(model, lr=1e-3, weight_decay=0.1, loraplus_lr_ratio=4.0)
    found = {names[id(p)]: group for group in groups for p in group["params"]}
    assert found.keys() == trainable_parameters(model).keys()
    for name, group in found.items():
        pulled = name.endswith(("lora_A", "lora_B")) and kind != "pissa"
        assert group["weight_decay"] == (0.1 if pulled else 0.0), name
        assert group["lr"] == (4e-3 if name.endswith("lora_B") else 1e-3), name
    assert groups[0]["lr"] == 1e-3


def test_noise_has_each_row_s_own_strength_and_is_there_in_training_only():
    embedding = nn.Embedding(50, 8)
    clean = embedding.weight.detach()[IDS[:1, :11] % 50]
    noise = EmbeddingNoise(embedding, alpha=5.0)
    noise.lengths = [2, 9]
    draws = torch.stack([embedding(IDS[:1, :11] % 50) - clean for _ in range(400)])
    for part, length in ((draws[:, 0, :2], 2), (draws[:, 0, 2:], 9)):
        most = 5 / (length * 8) ** 0.5
        assert 0.99 * most < part.abs().max() <= most * 1.0001
        assert abs(part.mean()) < 0.02 * most
    assert torch.equal(embedding.eval()(IDS[:1, :11] % 50), clean)


def test_without_alpha_there_is_no_noise():
    embedding = nn.Embedding(50, 8)
    EmbeddingNoise(embedding, alpha=0.0)
    assert not embedding._forward_hooks
