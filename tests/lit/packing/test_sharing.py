"""A beginning that rows share is computed once, and every row stays what it is alone."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import FAMILIES, make_model, moved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from data.beginnings.find import find_beginnings
from data.planning.batch import collate, separate
from data.planning.loader import neighbors_of
from data.types import IGNORE, Batch, Example
from lit.model.loss import summed_loss, token_losses
from lit.model.preparation import use_checkpointing
from lit.packing import hidden_states as hidden_module
from lit.packing.attention import PACKED, Seen
from lit.packing.hidden_states import as_computed, hidden_states
from lit.packing.pack import pack, share, unpacked
from lora import lora_function
from lora.config import LoRAConfig
from lora.dropout import dropout_mask
from lora.injection import inject, trainable_parameters
from tests.families.model import make_family

CHANGES = {
    # Weights are too small for scores to reach the usual cap of 50.
    "gemma2": {"attn_logit_softcapping": 1e-3},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "opt": {"dropout": 0.0},
}
WINDOWS = (5, 14, 64)
"""Shorter than the beginnings below, in the middle of a row, and longer than every row."""
CASES = [
    (family, window)
    for family in FAMILIES
    for window in (WINDOWS if "sliding_window" in FAMILIES[family] else (None,))
]


def random_rows(seed: int = 0) -> list[Example]:
    """Two rows that share 9 tokens, three that share 10 more, and one that shares none."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, 320, (count,), generator=generator).tolist()

    every, some = tokens(9), tokens(10)
    rests = [tokens(n) for n in (4, 6, 1, 9)]
    rows = [
        every + rests[0],
        every + some + rests[1],
        tokens(7),
        every + some + rests[2],
        every + some + rests[3],
    ]
    # The first label of the fourth row is predicted by a token that three rows share.
    labels = (2, 3, 4, 1, 9)
    return [
        Example(row, [IGNORE] * (len(row) - n) + row[len(row) - n :])
        for row, n in zip(rows, labels, strict=True)
    ]


def shared(rows: list[Example]) -> Batch:
    return collate(rows, neighbors=neighbors_of(find_beginnings(rows), np.arange(len(rows))))


def make(family: str, window: int | None = None) -> PreTrainedModel:
    """A tuned model of a family, packed and sharing."""
    changes = CHANGES.get(family, {}) | ({} if window is None else {"sliding_window": window})
    model = make_model(family, **changes)
    inject(model, LoRAConfig(r=2, lora_alpha=4))
    moved(model)
    assert pack(model) is None
    assert share(model) is None
    return model


def by_row(batch: Batch, states: Tensor) -> Tensor:
    """The states of a batch with shared beginnings as those of separate rows."""
    parts = states.split(batch.lengths, 1)
    return torch.cat([parts[segment] for path in batch.paths for segment in path], 1)


def test_the_rows_of_these_tests_form_a_tree():
    batch = shared(random_rows())
    assert batch.lengths == (9, 4, 10, 6, 7, 1, 9)
    assert batch.paths == ((0, 1), (0, 2, 3), (4,), (0, 2, 5), (0, 2, 6))
    assert batch.row_lengths == tuple(len(row.ids) for row in random_rows())


@pytest.mark.parametrize(("family", "window"), CASES)
def test_states_and_gradients_with_shared_beginnings_equal_those_of_separate_rows(family, window):
    model = make(family, window).train()
    batch = shared(random_rows())
    states, gradients = [], []
    for way in (separate(batch), batch):
        found = hidden_states(model, way)
        states.append(by_row(batch, found) if way.paths else found)
        weights = torch.randn(states[-1].shape, generator=torch.Generator().manual_seed(1))
        (states[-1] * weights).sum().backward()
        trained = trainable_parameters(model)
        gradients.append({name: p.grad.clone() for name, p in trained.items()})
        for parameter in trained.values():
            parameter.grad = None
    torch.testing.assert_close(states[1], states[0], atol=1e-5, rtol=1e-5)
    assert len(gradients[0]) > 4
    for name, expected in gradients[0].items():
        scale = float(expected.abs().max())
        assert scale > 0
        torch.testing.assert_close(
            gradients[1][name] / scale, expected / scale, atol=1e-5, rtol=1e-5, msg=name
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_of_each_row_is_that_of_the_row_alone(family):
    model, rows = make(family), random_rows()
    alone = torch.cat([token_losses(model, collate([row])) for row in rows])
    torch.testing.assert_close(token_losses(model, shared(rows)), alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(summed_loss(model, shared(rows)), alone.sum(), atol=1e-4, rtol=1e-5)


@st.composite
def trees(draw: st.DrawFn) -> list[Example]:
    """Rows that grow from each other's beginnings."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    rows: list[list[int]] = []
    for _ in range(draw(st.integers(2, 6))):
        parent = draw(st.sampled_from(rows)) if rows else []
        kept = parent[: draw(st.integers(0, len(parent)))]
        count = draw(st.integers(2, 14))
        rows.append(kept + torch.randint(3, 320, (count,), generator=generator).tolist())
    labels = [draw(st.integers(0, len(row) - 1)) for row in rows]
    return [
        Example(row, [IGNORE] * (len(row) - n) + row[len(row) - n :])
        for row, n in zip(rows, labels, strict=True)
    ]


@torch.no_grad()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=trees(), window=st.sampled_from(WINDOWS))
def test_any_tree_of_rows_equals_separate_rows(rows, window):
    if window not in _models:
        _models[window] = make("mistral", window)
    model = _models[window]
    batch = shared(rows)
    alone = separate(batch)
    plain = collate(rows)
    assert torch.equal(alone.input_ids, plain.input_ids)
    assert torch.equal(alone.predicting, plain.predicting)
    if batch.paths:
        states = by_row(batch, hidden_states(model, batch))
        torch.testing.assert_close(states, hidden_states(model, plain), atol=1e-5, rtol=1e-5)


_models: dict[int, PreTrainedModel] = {}


@torch.no_grad()
@pytest.mark.parametrize("segment", [1, 3, 4, 5, 6])
def test_the_rest_of_a_row_changes_no_bit_of_others(segment):
    model, batch = make("llama"), shared(random_rows())
    before = hidden_states(model, batch).split(batch.lengths, 1)
    ids = batch.input_ids.clone()
    ids.split(batch.lengths, 1)[segment].add_(1)
    batch.input_ids = ids
    after = hidden_states(model, batch).split(batch.lengths, 1)
    same = [torch.equal(x, y) for x, y in zip(before, after, strict=True)]
    assert same == [place != segment for place in range(len(same))]


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_checkpointing_changes_no_gradient_of_shared_beginnings(family):
    gradients = []
    for checkpointing in (False, True):
        model = make(family).train()
        if checkpointing:
            use_checkpointing(model)
        summed_loss(model, shared(random_rows())).backward()
        gradients.append([p.grad for p in trainable_parameters(model).values()])
    for kept, computed_again in zip(*gradients, strict=True):
        assert torch.equal(kept, computed_again)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=trees())
def test_dropout_draws_one_mask_for_a_beginning(rows):
    """Compare with separate rows that all get the mask of the beginning that they share."""
    batch = shared(rows)
    if not batch.paths:
        return
    model, apart = _with_dropout(), separate(batch)
    index = by_row(batch, torch.arange(sum(batch.lengths))[None])[0]

    def repeated(
        shape: torch.Size, dropout: float, seed: int, like: Tensor
    ) -> tuple[Tensor, float]:
        one = torch.Size((*shape[:-2], sum(batch.lengths), shape[-1]))
        mask, kept = dropout_mask(one, dropout, seed, like)
        return mask[..., index, :], kept

    found = []
    for way in (batch, apart):
        with pytest.MonkeyPatch.context() as patch:
            if way is apart:
                patch.setattr(lora_function, "dropout_mask", repeated)
            torch.manual_seed(0)
            states = hidden_states(model, way)
            states = by_row(batch, states) if way.paths else states
            weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
            (states * weights).sum().backward()
        trained = trainable_parameters(model).values()
        found.append([states.detach(), *(p.grad / p.grad.abs().max() for p in trained)])
        model.zero_grad()
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@cache
def _with_dropout() -> PreTrainedModel:
    model = make_model()
    inject(model, LoRAConfig(r=2, lora_alpha=4, lora_dropout=0.5))
    moved(model)
    assert pack(model) is share(model) is None
    return model.train()


# A model that cannot share computes separate rows.


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lfm2", "carries something from token to token"),
        ("mamba", "computes rows one by one"),
        ("bloom", "computes rows one by one"),
    ],
)
def test_a_family_that_cannot_share_says_why_and_computes_separate_rows(name, reason):
    model, plain = make_family(name), make_family(name)
    pack(model)
    assert reason in str(share(model))
    batch, rows = shared(random_rows()), random_rows()
    assert not as_computed(model, batch).paths
    expected = torch.cat([token_losses(plain, collate([row])) for row in rows])
    torch.testing.assert_close(token_losses(model, batch), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_rows_beyond_the_limit_of_longrope_do_not_share_and_shorter_ones_do():
    model, plain = make_family("phi3, longrope"), make_family("phi3, longrope")
    assert pack(model) is share(model) is None
    short = [Example([*range(3, 12), n], [IGNORE] * 9 + [n]) for n in (20, 30, 40)]
    for rows, together in ((short, True), (random_rows(), False)):
        batch = shared(rows)
        assert bool(as_computed(model, batch).paths) == together
        expected = torch.cat([token_losses(plain, collate([row])) for row in rows])
        torch.testing.assert_close(token_losses(model, batch), expected, atol=1e-4, rtol=1e-4)


def test_a_model_that_is_packed_no_more_shares_no_more():
    model, batch = make("llama"), shared(random_rows())
    assert as_computed(model, batch) is batch
    with unpacked(model):
        assert not as_computed(model, batch).paths
        with pytest.raises(RuntimeError, match="packed models only"):
            hidden_states(model, batch)


@pytest.mark.parametrize("fault", ["positions", "keys", "error"])
def test_a_model_whose_rows_would_change_does_not_share(fault, monkeypatch: pytest.MonkeyPatch):
    model = make_model()
    assert pack(model) is None
    if fault == "keys":
        seen = hidden_module._seen

        def blind(batch: Batch) -> Seen | None:
            made = seen(batch)
            return made and replace(made, paths=tuple(path[-1:] for path in made.paths))

        monkeypatch.setattr(hidden_module, "_seen", blind)
    elif fault == "error":
        monkeypatch.setattr(Seen, "bias", lambda *given: {}["segments"])
    else:
        rotary = model.model.rotary_emb.forward
        monkeypatch.setattr(
            model.model.rotary_emb,
            "forward",
            lambda x, position_ids: rotary(x, torch.arange(x.shape[1])[None]),
        )
    told = "fails (KeyError: 'segments')" if fault == "error" else "would change by"
    assert told in str(share(model))
    assert not as_computed(model, shared(random_rows())).paths
    assert model.config._attn_implementation == PACKED
