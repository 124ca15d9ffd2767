"""The losses of a comparison, their mean and interval, and the verdict."""

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from data.types import IGNORE, Example
from lit.comparison.result import Comparison, LossResult, verdict
from lit.measures import losses as losses_module
from lit.measures.losses import Losses, measuring_losses
from lit.packing.hidden_states import sharing
from lora.config import LoRAConfig
from lora.injection import inject, lora_layers

random = np.random.default_rng(1)


def losses(base: np.ndarray, difference: np.ndarray, labels: np.ndarray) -> Losses:
    """Return the losses of rows from means per token."""
    return Losses(base * labels, (base + difference) * labels, labels)


def test_the_mean_is_over_tokens_and_not_over_rows() -> None:
    two_rows = losses(np.array([1.0, 4.0]), np.array([1.0, -2.0]), np.array([30, 10]))
    assert two_rows.mean("base") == pytest.approx((30 * 1 + 10 * 4) / 40)
    assert two_rows.mean("tuned") == pytest.approx((30 * 2 + 10 * 2) / 40)
    assert two_rows.rows("base").tolist() == [1, 4]
    assert two_rows.rows("tuned").tolist() == [2, 2]


def test_the_interval_is_1_96_standard_errors_wide_on_each_side() -> None:
    difference = random.normal(-0.1, 0.5, 400)
    low, high = losses(np.full(400, 3.0), difference, np.full(400, 10)).interval()
    error = difference.std() / 20
    assert low == pytest.approx(difference.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(difference.mean() + 1.96 * error, abs=0.1 * error)


def test_a_row_has_as_much_weight_in_the_interval_as_it_has_tokens() -> None:
    difference, labels = np.repeat([0.0, 1.0], 20), np.repeat([1000, 1], 20)
    low, high = losses(np.full(40, 3.0), difference, labels).interval()
    assert 0 < low < high < 0.005


def test_rows_that_are_hard_for_both_models_do_not_widen_the_interval() -> None:
    base = random.uniform(0.1, 9.0, 30)
    low, high = losses(base, np.full(30, -0.2), np.full(30, 8)).interval()
    assert (low, high) == pytest.approx((-0.2, -0.2))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.3, -0.1, "The adapter is better in manner; that it ties"),
        (-0.3, 0.1, "No difference was shown"),
        (-0.1, 0.3, "No difference was shown"),
        (-0.3, 0.0, "No difference was shown"),
        (0.0, 0.3, "No difference was shown"),
        (0.1, 0.3, "The adapter is worse"),
    ],
)
def test_the_verdict_is_one_that_the_interval_supports(
    low: float, high: float, expected: str
) -> None:
    loss = LossResult(3.0, 3.0 + (low + high) / 2, low, high, 10, 100, 5)
    result = Comparison("a", "b", "2026-01-01", 1.0, "", {}, loss, loss, [], [])
    assert verdict(result).sentence.startswith(expected)


def test_the_losses_of_rows_do_not_depend_on_their_batches(
    tiny_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(tiny_model, LoRAConfig())
    for _, layer in lora_layers(tiny_model):
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    examples = []
    for length in (9, 30, 5, 17, 12):
        ids = random.integers(3, 300, length).tolist()
        examples.append(Example(ids, [IGNORE] * 3 + ids[3:]))
    progress: dict[int, list[int]] = {2048: [], 30: []}
    measured = []
    for max_tokens, rows in progress.items():
        monkeypatch.setattr(losses_module, "MAX_TOKENS", max_tokens)
        with measuring_losses(tiny_model) as measure:
            measured.append(measure(examples, rows.append))
    assert progress == {2048: [5, 5], 30: [1, 1, 1, 1, 2, 2, 1, 1]}
    for which in ("base", "tuned", "labels"):
        one, several = (getattr(losses, which) for losses in measured)
        assert one == pytest.approx(several, rel=1e-5)
    assert not np.isclose(measured[0].base, measured[0].tuned, rtol=1e-4).any()


def test_the_losses_of_rows_are_the_same_with_shared_beginnings(
    tiny_model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(tiny_model, LoRAConfig())
    for _, layer in lora_layers(tiny_model):
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    starts = [random.integers(3, 300, 40).tolist() for _ in range(2)]
    examples = []
    for row in range(12):
        ids = starts[row % 2] + random.integers(3, 300, 3 + row).tolist()
        examples.append(Example(ids, [IGNORE] * 40 + ids[40:]))
    computed: list[int] = []
    embedding = tiny_model.get_input_embeddings()
    embedding.register_forward_hook(lambda *call: computed.append(call[2].shape[1]))
    measured, tokens = [], []
    for share in (losses_module.share, lambda model: "it does not"):
        monkeypatch.setattr(losses_module, "share", share)
        monkeypatch.setattr(losses_module, "MAX_TOKENS", 100)
        if measured:
            sharing.clear()
        computed.clear()
        with measuring_losses(tiny_model) as measure:
            measured.append(measure(examples, lambda _: None))
        tokens.append(sum(computed))
    assert tokens[0] < 0.7 * tokens[1]
    for which in ("base", "tuned", "labels"):
        together, apart = (getattr(losses, which) for losses in measured)
        assert together == pytest.approx(apart, rel=1e-5)
