"""The contract of every fast layer: whatever is done to the model, it computes what it should."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, make_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

import lit.fast_layers.onednn_linear
from data.planning.batch import collate
from data.types import IGNORE, Example
from lit.fast_layers.onednn_linear import OneDNNLinear
from lit.fast_layers.table import FAST_LAYERS, use_fast_answers, use_fast_layers
from lit.model.loss import summed_loss
from lit.packing.pack import pack
from lora.config import LoRAConfig
from lora.injection import adapters_disabled, eject, inject, merge, trainable_parameters
from lora.replacement import replacements

IDS = torch.arange(3, 23)[None]
KINDS = {kind: [kind] for kind in FAST_LAYERS} | {"all": list(FAST_LAYERS)}
over_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def amd_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU on which every fast layer is used."""
    path = tmp_path / "cpuinfo"
    path.write_text("vendor_id\t: AuthenticAMD\n")
    monkeypatch.setattr(lit.fast_layers.onednn_linear, "CPU_INFO", path)


def adapted(family: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A model with an adapter that changes its logits by about a tenth."""
    model = make_model(family)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.02)
    inject(model, LoRAConfig(r=4, target_modules="all-linear"))
    for name, parameter in trainable_parameters(model).items():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    return model


def with_fast_layers(kind: str, family: str = "llama") -> PreTrainedModel:
    model = adapted(family)
    counts = use_fast_layers(model, KINDS[kind])
    assert all(counts.values()), counts
    return model


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, use_cache=False).logits


def of_the_adapter() -> Tensor:
    return logits(adapted())


def of_the_base() -> Tensor:
    return logits(eject(adapted()))


def merged(model: PreTrainedModel) -> Tensor:
    merge(model)
    assert not replacements(model)
    return logits(model)


def ejected(model: PreTrainedModel) -> Tensor:
    eject(model)
    assert not replacements(model)
    assert [type(m) for m in model.modules()] == [type(m) for m in make_model().modules()]
    return logits(model)


def deep_copied(model: PreTrainedModel) -> Tensor:
    other = copy.deepcopy(model)
    wipe(model)
    return logits(other)


def pickled(model: PreTrainedModel) -> Tensor:
    other = pickle.loads(pickle.dumps(model))
    wipe(model)
    return logits(other)


def copied_and_ejected(model: PreTrainedModel) -> Tensor:
    other = copy.deepcopy(model)
    wipe(model)
    return logits(eject(other))


def with_its_state_in_a_plain_model(model: PreTrainedModel) -> Tensor:
    other = adapted(seed=1)
    other.load_state_dict(model.state_dict())
    return logits(other)


def with_the_state_of_a_plain_model(model: PreTrainedModel) -> Tensor:
    wipe(model)
    model.load_state_dict(adapted().state_dict())
    return logits(model)


def switched_off(model: PreTrainedModel) -> Tensor:
    with adapters_disabled(model):
        return logits(model)


def switched_off_and_on(model: PreTrainedModel) -> Tensor:
    switched_off(model)
    return logits(model)


def injected_again(model: PreTrainedModel) -> Tensor:
    state = {name: p.detach().clone() for name, p in trainable_parameters(model).items()}
    inject(eject(model), LoRAConfig(r=4, target_modules="all-linear"))
    use_fast_layers(model)
    for name, parameter in trainable_parameters(model).items():
        parameter.data.copy_(state[name])
    return logits(model)


def injected_over_fast_layers(model: PreTrainedModel) -> Tensor:
    adapter = adapted()
    base = eject(adapted())
    use_fast_layers(base)
    inject(base, LoRAConfig(r=4, target_modules="all-linear"))
    for name, parameter in trainable_parameters(base).items():
        parameter.data.copy_(adapter.get_parameter(name))
    return logits(merge(base))


def wipe(model: PreTrainedModel) -> None:
    for parameter in model.parameters():
        parameter.data.zero_()


OPERATIONS: dict[str, tuple[Callable[[PreTrainedModel], Tensor], Callable[[], Tensor]]] = {
    "as it is": (logits, of_the_adapter),
    "merged": (merged, of_the_adapter),
    "ejected": (ejected, of_the_base),
    "deep-copied": (deep_copied, of_the_adapter),
    "pickled": (pickled, of_the_adapter),
    "deep-copied and ejected": (copied_and_ejected, of_the_base),
    "its state in a plain model": (with_its_state_in_a_plain_model, of_the_adapter),
    "with the state of a plain model": (with_the_state_of_a_plain_model, of_the_adapter),
    "switched off": (switched_off, of_the_base),
    "switched off and on": (switched_off_and_on, of_the_adapter),
    "injected again": (injected_again, of_the_adapter),
    "injected over fast layers": (injected_over_fast_layers, of_the_adapter),
}


@over_kinds
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_model_with_fast_layers_computes_what_a_plain_one_does(operation: str, kind: str) -> None:
    operate, expected = OPERATIONS[operation]
    torch.testing.assert_close(operate(with_fast_layers(kind)), expected(), atol=2e-5, rtol=1e-4)


def test_the_adapter_of_this_test_matters() -> None:
    assert (of_the_adapter() - of_the_base()).abs().max() > 0.1


@over_kinds
def test_fast_layers_show_in_print_and_keep_every_name(kind: str) -> None:
    model = with_fast_layers(kind)
    for name in KINDS[kind]:
        assert FAST_LAYERS[name].__name__ in str(model)
    assert model.state_dict().keys() == adapted().state_dict().keys()
    assert trainable_parameters(model).keys() == trainable_parameters(adapted()).keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_of_every_family_stay(family: str) -> None:
    batch = collate([Example(list(range(3, n)), [IGNORE, *range(4, n)]) for n in (20, 12, 9)])
    results = []
    for kinds in ([], list(FAST_LAYERS)):
        model = adapted(family)
        use_fast_layers(model, kinds)
        pack(model, batch)
        loss = summed_loss(model.train(), batch)
        loss.backward()
        gradients = [p.grad.flatten() for p in trainable_parameters(model).values()]
        results.append(torch.cat([loss.detach().view(1), *gradients]))
    assert (results[0] - results[1]).norm() <= 1e-5 * results[0].norm()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("make", [make_model, adapted])
def test_answers_of_every_family_stay(make: Callable[[str], PreTrainedModel], family: str) -> None:
    model = make(family).eval()
    expected = logits(model)
    use_fast_answers(model)
    assert any(isinstance(module, OneDNNLinear) for _, module in replacements(model))
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-4)


def test_a_norm_or_a_linear_layer_that_trains_is_never_replaced() -> None:
    counts = use_fast_layers(make_model().requires_grad_(True))
    assert (counts["RMS norm"], counts["oneDNN linear"]) == (0, 0)


def test_layers_with_a_full_copy_that_trains_are_left_alone() -> None:
    """gemma2 caps its logits, so its loss calls the head, where others read its weight."""
    batch = collate([Example(list(range(3, 20)), [IGNORE, *range(4, 20)])])
    gradients = []
    for kinds in ([], list(FAST_LAYERS)):
        model = make_model("gemma2", tie_word_embeddings=False)
        inject(model, LoRAConfig(modules_to_save=["lm_head", "down_proj"]))
        use_fast_layers(model, kinds)
        pack(model, batch)
        summed_loss(model, batch).backward()
        gradients.append({name: p.grad for name, p in trainable_parameters(model).items()})
    plain, fast = gradients
    assert any("lm_head" in name for name in plain)
    for name, value in plain.items():
        assert (fast[name] - value).norm() <= 1e-5 * value.norm(), name


def test_recognition_reads_no_numbers() -> None:
    config = AutoConfig.for_model("llama", **FAMILIES["llama"])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.requires_grad_(False)
    counts = use_fast_layers(model)
    # The other two replace layers on a CPU only.
    assert counts == {"gated MLP": config.num_hidden_layers, "RMS norm": 0, "oneDNN linear": 0}
