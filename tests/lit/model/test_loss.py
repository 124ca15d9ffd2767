"""The loss at labeled positions, against plain cross entropy over the model's own logits."""

import pytest
import torch
import torch.nn.functional as F
from conftest import make_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from data.planning.batch import collate
from data.types import IGNORE, Example
from lit.model.loss import CHUNK, summed_loss, token_losses
from lit.packing.pack import pack
from lora.config import ConfigError, LoRAConfig
from lora.injection import inject, lora_layers, trainable_parameters
from tests.start_checks import check_loss

# Changes that make what a family does to its logits large enough to be missed if left out.
HEADS = {
    "llama": {},
    "granite": {"logits_scaling": 0.05},
    "cohere": {"logit_scale": 20.0},
    "gemma2": {"final_logit_softcapping": 0.1},
    "gemma3_text": {"final_logit_softcapping": 0.1},
    "gpt2": {},
    "phi": {},
}
over_heads = pytest.mark.parametrize("family", HEADS)


def make_rows(lengths: tuple[int, ...] = (9, 3, 14, 1), words: int = 320) -> list[Example]:
    """Rows whose first third has no label, the first token always among it."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in lengths:
        ids = torch.randint(3, words, (length,), generator=generator).tolist()
        prompt = max(1, length // 3)
        rows.append(Example(ids, [IGNORE] * prompt + ids[prompt:]))
    return rows


def make_tuned(family: str, **changes: object) -> PreTrainedModel:
    """A model with a loud adapter, and a random bias where its head has one."""
    model = make_model(family, **(HEADS[family] | changes))
    if model.get_output_embeddings().bias is not None:
        nn.init.normal_(model.get_output_embeddings().bias)
    inject(model, LoRAConfig(r=4, target_modules="all-linear"))
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.3)
    return model


def plain_losses(model: PreTrainedModel, rows: list[Example]) -> Tensor:
    """The cross entropy of each labeled token by the model's own logits, row by row."""
    losses = []
    for row in rows:
        logits, labels = model(torch.tensor([row.ids])).logits[0, :-1], torch.tensor(row.labels)[1:]
        losses.append(F.cross_entropy(logits, labels, reduction="none")[labels != IGNORE])
    return torch.cat(losses)


@over_heads
@pytest.mark.parametrize("packed", [False, True])
def test_loss_and_gradients_equal_plain_cross_entropy(family, packed):
    model, plain = make_tuned(family), make_tuned(family)
    rows = make_rows()
    if packed:
        assert pack(model, collate(rows)) is None
    ours, expected = summed_loss(model, collate(rows)), plain_losses(plain, rows).sum()
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    ours.backward()
    expected.backward()
    for name, parameter in trainable_parameters(model).items():
        wanted = trainable_parameters(plain)[name].grad
        # Granite's gradients reach 70, and float32 sums of such terms differ by their order.
        atol = max(1e-4, 1e-5 * wanted.abs().max().item())
        assert wanted.any(), name
        torch.testing.assert_close(parameter.grad, wanted, atol=atol, rtol=1e-4, msg=name)


@over_heads
def test_token_losses_come_in_order(family):
    model, rows = make_tuned(family), make_rows()
    expected = plain_losses(model, rows)
    pack(model, collate(rows))
    torch.testing.assert_close(token_losses(model, collate(rows)), expected, atol=1e-4, rtol=0)
    assert expected.std() > 1e-3


def test_a_row_is_predicted_from_nothing_before_it():
    model, rows = make_tuned("llama"), make_rows((6, 5))
    rows = [row._replace(labels=[IGNORE, *row.ids[1:]]) for row in rows]
    pack(model, collate(rows))
    before = token_losses(model, collate(rows))
    rows[0] = make_rows((7,))[0]._replace(labels=[IGNORE] * 7)
    after = token_losses(model, collate(rows))
    assert (len(before), len(after)) == (9, 4)
    torch.testing.assert_close(after, before[5:], atol=1e-6, rtol=0)


def test_a_batch_without_labels_costs_nothing():
    model = make_tuned("llama")
    loss = summed_loss(model, collate([Example([5, 6, 7], [IGNORE] * 3)]))
    loss.backward()
    assert loss == 0
    assert not any(parameter.grad.any() for parameter in trainable_parameters(model).values())


@pytest.mark.parametrize("family", [family for family in HEADS if family != "gemma2"])
@pytest.mark.parametrize("packed", [False, True])
def test_the_check_passes_where_the_loss_is_right(family, packed):
    model, batch = make_tuned(family).train(), collate(make_rows())
    if packed:
        pack(model, batch)
    before = model.config._attn_implementation
    check_loss(model, batch)
    assert model.config._attn_implementation == before
    assert model.training


@pytest.mark.parametrize("family", ["llama", "granite", "gpt2", "phi"])
def test_the_check_stops_where_the_logits_are_others(family, monkeypatch):
    model, batch = make_tuned(family), collate(make_rows())
    pack(model, batch)
    head = model.get_output_embeddings()
    forward = head.forward
    monkeypatch.setattr(head, "forward", lambda hidden: 50 * forward(hidden))
    with pytest.raises(ConfigError, match=f"{type(model).__name__}.* cannot be trained yet"):
        check_loss(model, batch)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation gave."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self.numel = max(self.numel, leaf.numel())
        return output


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("llama", torch.float32), ("llama", torch.bfloat16), ("gemma3_text", torch.float32)],
)
def test_no_tensor_is_as_large_as_labels_by_vocabulary(family, dtype):
    words, labeled = 20_000, 2_000
    model = make_tuned(family, vocab_size=words).to(dtype)
    rows = make_rows((251,) * 8, words)
    rows = [row._replace(labels=[IGNORE, *row.ids[1:]]) for row in rows]
    batch = collate(rows)
    pack(model, batch)
    assert (batch.labels != IGNORE).sum() == labeled
    with Largest() as largest:
        summed_loss(model, batch).backward()
    assert 0 < largest.numel <= CHUNK * words < labeled * words
