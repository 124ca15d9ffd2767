"""Several adapters on one base: each computes what it computes alone."""

import pytest
import torch
from conftest import ADAPTERS, make_model

from lora.adapter_set import AdapterSet
from lora.config import LoRAConfig
from lora.injection import inject, trainable_parameters

IDS = torch.arange(3, 40)[None]


def adapt(model: torch.nn.Module, kind: str, seed: int) -> None:
    """Inject an adapter of a kind that changes what the model computes."""
    torch.manual_seed(seed)
    inject(model, LoRAConfig(r=4, **ADAPTERS[kind].ours))
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(IDS).logits


def test_each_adapter_of_a_set_computes_bit_for_bit_what_it_computes_alone() -> None:
    kinds = {kind: i for i, kind in enumerate(ADAPTERS) if ADAPTERS[kind].model is None}
    model = make_model()
    base, before = logits(model), str(model)
    kept = AdapterSet(model)
    for kind, seed in kinds.items():
        adapt(model, kind, seed)
        kept.keep(kind)
        assert torch.equal(logits(model), base)
    assert kept.names == list(kinds)
    for kind, seed in [*kinds.items(), *reversed(kinds.items())]:
        alone = make_model()
        adapt(alone, kind, seed)
        kept.use(kind)
        assert torch.equal(logits(model), logits(alone)), kind
        assert not torch.equal(logits(model), base)
    kept.use(None)
    assert torch.equal(logits(model), base)
    assert str(model) == before


def test_adapters_of_a_set_share_the_weights_of_the_base() -> None:
    model = make_model()
    weights = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    kept = AdapterSet(model)
    for name in ("a", "b"):
        adapt(model, "lora", 1)
        kept.keep(name)
    kept.use("b")
    used = {parameter.data_ptr() for parameter in model.parameters()}
    assert set(weights.values()) <= used


def test_a_set_keeps_no_adapter_twice_and_none_that_is_not_there() -> None:
    model = make_model()
    kept = AdapterSet(model)
    with pytest.raises(ValueError, match="no adapter to keep"):
        kept.keep("a")
    adapt(model, "lora", 1)
    kept.keep("a")
    with pytest.raises(ValueError, match="already"):
        kept.keep("a")
    with pytest.raises(KeyError):
        kept.use("b")
