"""PiSSA: the update starts as the principal part of the weight."""

import pytest
import torch
from conftest import make_model
from torch import nn

from lora.config import ConfigError, LoRAConfig
from lora.injection import inject, lora_layers
from lora.variants.pissa import PiSSALinear, _principal_factors


@pytest.mark.parametrize("shape", [(12, 9), (9, 12), (10, 10)])
def test_a_and_b_start_as_the_best_fit_of_their_rank(shape):
    layer = PiSSALinear(nn.Linear(*shape[::-1]), LoRAConfig(r=3, lora_alpha=7))
    rest = layer.base.weight - layer.config.scale * layer.lora_B @ layer.lora_A
    values = torch.linalg.svdvals(layer.base.weight)
    torch.testing.assert_close(torch.linalg.svdvals(rest)[: min(shape) - 3], values[3:])
    assert layer.lora_A.is_contiguous()
    assert layer.lora_B.is_contiguous()
    # Row i of A and column i of B have the same norm.
    torch.testing.assert_close(layer.lora_A.norm(dim=1), layer.lora_B.norm(dim=0))


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_a_and_b_do_not_depend_on_the_signs_that_a_library_gives_eigenvectors(shape, monkeypatch):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = _principal_factors(weight, 4)
    eigh = torch.linalg.eigh

    def flipped(matrix):
        values, vectors = eigh(matrix)
        signs = torch.tensor([-1.0, 1.0]).repeat(vectors.shape[1] // 2)
        return torch.return_types.linalg_eigh((values, vectors * signs))

    monkeypatch.setattr(torch.linalg, "eigh", flipped)
    for ours, theirs in zip(_principal_factors(weight, 4), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_rank_above_the_number_of_singular_directions_is_refused():
    with pytest.raises(ConfigError, match=r"^`r` is 7, but a layer of shape \(10, 6\) has 6 sing"):
        PiSSALinear(nn.Linear(6, 10), LoRAConfig(r=7))


def test_no_layer_is_replaced_when_one_of_them_is_too_small():
    model = make_model(hidden_size=64, head_dim=16)  # its key projections have 32 rows
    with pytest.raises(ConfigError, match="32 singular"):
        inject(model, LoRAConfig(r=33, variant="pissa"))
    assert not any(lora_layers(model))
