"""Rows laid end to end see only themselves."""

import pytest
import torch
from conftest import FAMILIES, SMALL, WINDOW, make_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from data.planning.batch import collate
from data.types import IGNORE, Batch, Example
from lit.packing.attention import PACKED
from lit.packing.hidden_states import hidden_states
from lit.packing.pack import pack, unpacked

LENGTHS = (9, 3, 14, 1)
# Weights are too small for scores to reach the usual cap of 50.
CHANGES = {
    "gemma2": {"attn_logit_softcapping": 1e-3},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "opt": {"dropout": 0.0},
}
over_families = pytest.mark.parametrize("family", FAMILIES)


def make(family: str, **changes: object) -> PreTrainedModel:
    return make_model(family, **(CHANGES.get(family, {}) | changes))


def make_packed(family: str, **changes: object) -> PreTrainedModel:
    """A model set to packed attention, whatever pack() would say to it."""
    model = make(family, **changes)
    model.set_attn_implementation(PACKED)
    return model


def make_rows(seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 320, (n,), generator=generator).tolist() for n in LENGTHS]


def flat(rows: list[list[int]]) -> Batch:
    return collate([Example(row, [IGNORE, *row[1:]]) for row in rows])


def one_by_one(model: PreTrainedModel, rows: list[list[int]]) -> Tensor:
    """The hidden states of rows that never met."""
    states = [model.base_model(torch.tensor([row]), use_cache=False)[0] for row in rows]
    return torch.cat(states, 1)


@over_families
@pytest.mark.parametrize("training", [False, True])
def test_packed_rows_equal_single_rows(family, training):
    model, plain = make(family).train(training), make(family).train(training)
    batch = flat(make_rows())
    assert pack(model, batch) is None
    assert model.config._attn_implementation == PACKED
    assert model.training is training
    torch.testing.assert_close(
        hidden_states(model, batch), one_by_one(plain, make_rows()), atol=1e-5, rtol=0
    )


@over_families
def test_gradients_of_packed_rows_equal_those_of_single_rows(family):
    model, plain = make_packed(family).train(), make(family).train()
    for states in (hidden_states(model, flat(make_rows())), one_by_one(plain, make_rows())):
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
        (states * weights).sum().backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert len(expected) > 10
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(
                parameter.grad, expected[name], atol=1e-4, rtol=1e-4, msg=name
            )


@over_families
def test_another_row_changes_no_bit(family):
    model = make_packed(family)
    before = hidden_states(model, flat(make_rows())).split(LENGTHS, 1)
    for changed in range(len(LENGTHS)):
        rows = make_rows()
        rows[changed] = make_rows(seed=1)[changed]
        after = hidden_states(model, flat(rows)).split(LENGTHS, 1)
        same = [torch.equal(x, y) for x, y in zip(before, after, strict=True)]
        assert same == [place != changed for place in range(len(LENGTHS))]


@pytest.mark.parametrize(
    "family", [name for name in FAMILIES if "sliding_window" in FAMILIES[name]]
)
def test_a_window_is_felt_in_rows_longer_than_it(family):
    models = make_packed(family), make_packed(family, sliding_window=64)
    narrow, wide = (hidden_states(m, flat(make_rows())).split(LENGTHS, 1) for m in models)
    same = [torch.equal(x, y) for x, y in zip(narrow, wide, strict=True)]
    assert same == [length <= WINDOW["sliding_window"] for length in LENGTHS]


def test_a_cap_on_scores_is_felt():
    models = make_packed("gemma2"), make_packed("gemma2", attn_logit_softcapping=50.0)
    capped, free = (hidden_states(model, flat(make_rows())) for model in models)
    assert (capped - free).abs().max() > 1e-4


OWN_ATTENTION = {
    "bloom": {"vocab_size": 320, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {
        "vocab_size": 320,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    },
    "mpt": {"vocab_size": 320, "d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2},
    "stablelm": SMALL,
    "gpt_oss": SMALL | {"num_local_experts": 2, "num_experts_per_tok": 2},
    "recurrent_gemma": SMALL,
}


def make_own(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **OWN_ATTENTION[family])
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("stablelm", "does not pass the row lengths to attention"),
        ("gpt_oss", "needs s_aux in attention"),
        ("recurrent_gemma", "its rows would see each other"),
    ],
)
def test_a_family_that_cannot_be_packed_says_why_and_stays_as_it_was(family, reason):
    model = make_own(family).train()
    before = model.config._attn_implementation
    assert reason in pack(model, flat(make_rows()))
    assert model.config._attn_implementation == before
    assert model.training


@pytest.mark.parametrize("family", ["bloom", "falcon", "mpt", "stablelm", "gpt_oss"])
def test_a_family_that_cannot_be_packed_is_computed_row_by_row(family):
    model, plain = make_own(family), make_own(family)
    batch = flat(make_rows())
    pack(model, batch)
    logits = model.get_output_embeddings()(hidden_states(model, batch))
    expected = [plain(torch.tensor([row])).logits for row in make_rows()]
    torch.testing.assert_close(logits, torch.cat(expected, 1), atol=1e-5, rtol=0)


@over_families
@torch.no_grad()
def test_an_unpacked_model_computes_as_it_did_before_it_was_packed(family):
    model, ids = make(family), torch.tensor([make_rows()[0]])
    before = model(input_ids=ids).logits
    assert pack(model, flat(make_rows())) is None
    with unpacked(model):
        assert torch.equal(model(input_ids=ids).logits, before)
    assert model.config._attn_implementation == PACKED
