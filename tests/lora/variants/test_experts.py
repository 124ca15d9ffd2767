"""Adapters on experts: compared with PEFT and with a dense reference in families of each layout."""

from pathlib import Path

import peft
import pytest
import torch
from conftest import moved
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from lora.config import ConfigError, LoRAConfig
from lora.families.experts import expert_parameters
from lora.injection import adapters_disabled, count_parameters, inject, merge, trainable_parameters
from lora.storage.adapter import AdapterError, fitting_config, load_adapter, save_adapter
from lora.storage.peft_format import from_peft
from lora.targets import expert_layers
from lora.variants.experts import LoRAExperts
from tests.conftest import make_model
from tests.families.model import make_family

FAMILIES = ("qwen3_moe", "mixtral", "gpt_oss", "granitemoe", "olmoe", "glm4_moe", "lfm2_moe")
IDS = torch.randint(3, 320, (2, 13), generator=torch.Generator().manual_seed(0))
ATTENTION = ["q_proj", "k_proj", "v_proj"]
over_families = pytest.mark.parametrize("family", FAMILIES)


def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, use_cache=False).logits


def tuned(family: str, **settings: object) -> PreTrainedModel:
    model = make_family(family)
    inject(model, LoRAConfig(**{"r": 3, "target_modules": [*ATTENTION, "experts"]} | settings))
    return moved(model, 0.1)


@over_families
@torch.no_grad()
def test_peft_reads_our_adapter_and_it_merges_to_the_same(family: str, tmp_path: Path) -> None:
    ours, base = tuned(family), logits(make_family(family))
    expected = logits(ours)
    assert (expected - base).abs().max() > 1
    with adapters_disabled(ours):
        assert torch.equal(logits(ours), base)
    save_adapter(ours, tmp_path, base="some/model")
    theirs = peft.PeftModel.from_pretrained(make_family(family), tmp_path)
    torch.testing.assert_close(logits(theirs.eval()), expected, atol=1e-4, rtol=1e-4)
    count = sum(p.numel() for name, p in theirs.named_parameters() if ".lora_" in name)
    assert count_parameters(ours).trainable == count
    torch.testing.assert_close(logits(merge(ours)), expected, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, LoRAExperts) for module in ours.modules())


@over_families
@torch.no_grad()
def test_an_adapter_that_peft_saved_on_experts_computes_the_same(
    family: str, tmp_path: Path
) -> None:
    config = peft.LoraConfig(
        r=3,
        target_modules=ATTENTION,
        target_parameters=["experts.down_proj", "experts.gate_up_proj"],
    )
    theirs = moved(peft.get_peft_model(make_family(family), config))
    theirs.save_pretrained(tmp_path)
    ours = make_family(family)
    load_adapter(ours, tmp_path)
    torch.testing.assert_close(logits(ours), logits(theirs), atol=1e-4, rtol=1e-4)


class Dense(nn.Module):
    """The update of all experts of a parameter, added as a dense tensor."""

    def __init__(self, A: Tensor, B: Tensor, experts: int, scale: float, transposed: bool) -> None:
        super().__init__()
        self.lora_A, self.lora_B = (nn.Parameter(t.detach().clone()) for t in (A, B))
        self.experts, self.scale, self.transposed = experts, scale, transposed

    def forward(self, weight: Tensor) -> Tensor:
        r = self.lora_A.shape[0] // self.experts
        A = self.lora_A.reshape(self.experts, r, -1)
        B = self.lora_B.reshape(-1, r, self.experts)
        update = torch.einsum("ore,eri->eio" if self.transposed else "ore,eri->eoi", B, A)
        return weight + self.scale * update


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
def test_gradients_equal_those_of_dense_updates_and_none_is_missing(
    family: str, checkpointing: bool
) -> None:
    ours, reference = tuned(family, target_modules="experts"), make_family(family)
    if checkpointing:
        ours.gradient_checkpointing_enable({"use_reentrant": False})
        ours.train()
    # With three tokens, some experts get none: their gradients are zero, not missing, as DDP needs.
    ids = IDS[:1, :3]
    ours(input_ids=ids, use_cache=False).logits.square().mean().backward()
    reference.requires_grad_(False)
    pairs = []
    for path, experts in expert_layers(reference).items():
        for name, update in ours.get_submodule(path).updates():
            dense = Dense(
                *update.factors(), update.experts, update.config.scale, experts.is_transposed
            )
            parametrize.register_parametrization(experts, name, dense)
            pairs += [(update, dense)]
    reference(input_ids=ids, use_cache=False).logits.square().mean().backward()
    unused = 0
    for update, dense in pairs:
        for name in ("lora_A", "lora_B"):
            mine, other = update.get_parameter(name).grad, dense.get_parameter(name).grad
            scale = float(other.abs().max())
            torch.testing.assert_close(mine, other, atol=1e-5 * max(scale, 1), rtol=1e-5)
            assert mine.any()
        unused += int((update.lora_A.grad.view(update.experts, -1) == 0).all(1).sum())
    assert unused > 0


def test_a_few_steps_lower_the_loss() -> None:
    model = make_family("qwen3_moe")
    inject(model, LoRAConfig(r=4, target_modules="experts"))
    optimizer = torch.optim.AdamW(trainable_parameters(model).values(), lr=1e-2)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


SELECTED = {
    "experts alone": ({"target_modules": "experts"}, [0, 1]),
    "a path": ({"target_modules": ["layers.1.mlp.experts"]}, [1]),
    "blocks": ({"target_modules": ["q_proj", "experts"], "layers_to_transform": [0]}, [0]),
    "excluded": (
        {"target_modules": "experts", "exclude_modules": ["layers.0.mlp.experts"]},
        [1],
    ),
    "the default": ({}, []),
    "all-linear": ({"target_modules": "all-linear"}, []),
}


@pytest.mark.parametrize("name", SELECTED)
def test_experts_are_selected_and_saved_as_linear_layers_are(name: str, tmp_path: Path) -> None:
    settings, blocks = SELECTED[name]
    model = make_family("qwen3_moe")
    inject(model, LoRAConfig(**settings))
    paths = [path for path, module in model.named_modules() if isinstance(module, LoRAExperts)]
    assert paths == [f"model.layers.{block}.mlp.experts" for block in blocks]
    moved(model, 0.1)
    save_adapter(model, tmp_path, base="some/model")
    again = make_family("qwen3_moe")
    load_adapter(again, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(logits(again), logits(model), atol=1e-5, rtol=1e-5)
        theirs = peft.PeftModel.from_pretrained(make_family("qwen3_moe"), tmp_path)
        torch.testing.assert_close(logits(theirs.eval()), logits(model), atol=1e-4, rtol=1e-4)


def test_patterns_name_experts_or_one_of_their_weights() -> None:
    model = make_family("qwen3_moe")
    config = LoRAConfig(
        target_modules="experts", rank_pattern={"experts.down_proj": 6, "mlp.experts": 2}
    )
    inject(model, config)
    layer = model.get_submodule("model.layers.0.mlp.experts")
    assert {name: update.config.r for name, update in layer.updates()} == {
        "gate_up_proj": 2,
        "down_proj": 6,
    }
    with pytest.raises(ConfigError, match="names up_proj, which is not an adapted layer"):
        inject(
            make_family("qwen3_moe"),
            LoRAConfig(target_modules="experts", rank_pattern={"up_proj": 1}),
        )


REFUSED = {
    "dropout": ({"lora_dropout": 0.1}, "experts, which take no dropout, and `lora_dropout` is 0.1"),
    "dora": ({"variant": "dora"}, "experts, which take no variant, and `variant` is dora"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_dropout_and_variants_are_refused_before_any_model_is_there(name: str) -> None:
    settings, message = REFUSED[name]
    for target in ("experts", ["q_proj", "mlp.experts"]):
        with pytest.raises(ConfigError, match=message):
            LoRAConfig(target_modules=target, **settings)


@pytest.mark.parametrize(
    ("model", "what"),
    [("llama", "it is no mixture of experts"), ("llama4_text", "Llama4TextExperts, which compute")],
)
def test_a_model_without_such_experts_is_refused_with_what_it_has(model: str, what: str) -> None:
    base = make_model() if model == "llama" else make_family(model)
    with pytest.raises(ConfigError, match=f"{what}.*the linear layers are .*q_proj"):
        inject(base, LoRAConfig(target_modules=["projections", "experts"]))
    assert not any(isinstance(module, LoRAExperts) for module in base.modules())


def settings(**changes: object) -> dict:
    both = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
    return {"r": 4, "target_modules": []} | both | changes


def test_settings_of_peft_on_experts_alone_are_read() -> None:
    assert from_peft(settings()).target_modules == ["mlp.experts"]
    last = settings(target_parameters=["gate_up_proj", "down_proj"], target_modules="all-linear")
    assert from_peft(last).target_modules == ["all-linear", "experts"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_parameters": ["mlp.experts.down_proj"]}, r"has \['down_proj'\] of 'mlp.experts'"),
        ({"target_parameters": ["mlp.gate.weight"]}, r"has \['weight'\] of 'mlp.gate'; only"),
        ({"alpha_pattern": {"experts": 3}}, "a pattern names 'experts', which PEFT does not apply"),
        ({"lora_dropout": 0.1}, "which take no dropout"),
    ],
)
def test_other_parameters_of_a_peft_adapter_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        from_peft(settings(**changes))


def test_an_absurd_update_of_experts_and_a_file_for_other_experts_are_refused(
    tmp_path: Path,
) -> None:
    model = tuned("qwen3_moe", target_modules="experts")
    with torch.no_grad():
        model.get_submodule("model.layers.1.mlp.experts").adapted.down_proj.lora_B.mul_(1e6)
    save_adapter(model, tmp_path, base="some/model")
    large = r"update of model\.layers\.1\.mlp\.experts\.down_proj has"
    with pytest.raises(AdapterError, match=large):
        load_adapter(make_family("qwen3_moe"), tmp_path)
    with pytest.raises(AdapterError, match="was made for another model"):
        fitting_config(make_family("mixtral"), tmp_path)


def test_every_experts_class_has_two_weights_in_order() -> None:
    for family in FAMILIES:
        for experts in expert_layers(make_family(family)).values():
            assert expert_parameters(experts) == ["gate_up_proj", "down_proj"]
