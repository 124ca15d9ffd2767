"""Modules that take the place of others in a model: put in, listed, taken out, copied."""

import copy

import torch
from torch import Tensor, nn

from lora.config import LoRAConfig
from lora.injection import eject, inject, lora_layers, merge
from lora.replacement import Replacement, replace_module, replacements


class Negated(Replacement):
    """A replacement that negates what another module computes."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return -self.inner(x)

    def original(self) -> nn.Module:
        return self.inner


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 4)))


def test_a_module_is_put_at_a_path_at_any_depth():
    model, outer, inner = make_model(), nn.Identity(), nn.Identity()
    replace_module(model, "0", outer)
    replace_module(model, "1.1", inner)
    assert model[0] is outer
    assert model[1][1] is inner
    assert isinstance(model[1][0], nn.ReLU)


def test_a_replacement_inside_another_one_is_listed_before_it():
    model = make_model()
    inner = Negated(model[1])
    outer = Negated(inner)
    replace_module(model, "1", outer)
    assert replacements(model) == [("1.inner", inner), ("1", outer)]


def test_a_module_that_is_used_twice_is_listed_under_both_paths_and_the_root_is_not():
    shared = Negated(nn.Linear(4, 4))
    model = Negated(nn.Sequential(shared, shared))
    assert dict(replacements(model)) == {"inner.0": shared, "inner.1": shared}


def test_eject_and_merge_take_out_nested_replacements():
    for take_out in (eject, merge):
        model, x = make_model(), torch.randn(3, 4)
        modules, expected = list(model.modules()), model(x)
        replace_module(model, "1.1", Negated(Negated(model[1][1])))
        replace_module(model, "1", Negated(model[1]))
        assert not torch.equal(model(x), expected)
        assert take_out(model) is model
        assert list(model.modules()) == modules
        assert torch.equal(model(x), expected)


def test_a_copy_of_a_model_computes_with_its_own_weights():
    model, x = make_model(), torch.randn(3, 4)
    inject(model, LoRAConfig(r=2, target_modules="all-linear"))
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_B)
    expected, twin = model(x), copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin(x), expected)
    torch.testing.assert_close(merge(twin)(x), expected)
