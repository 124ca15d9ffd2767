"""A model is packed only if no row changes another, and every row stays what it is alone."""

from dataclasses import replace

import pytest
import torch
from conftest import make_model
from torch import Tensor, nn
from transformers import AttentionInterface, MllamaForCausalLM, PreTrainedModel
from transformers.models.mllama.configuration_mllama import MllamaTextConfig

from data.planning.batch import collate
from data.types import IGNORE, Batch, Example
from lit.packing import reach
from lit.packing.attention import PACKED, packed_attention
from lit.packing.decoder import decoder_of, head_of
from lit.packing.hidden_states import hidden_states
from lit.packing.isolation import rows_are_isolated
from lit.packing.pack import pack, unpacked
from lit.packing.probe import PROBE_LENGTHS, probe_batch
from lit.packing.reach import PROBED, check_reach
from lora.config import ConfigError
from tests.families.model import make, make_family
from tests.families.table import LOCAL, LONGROPE, SMALL


class Mixed(nn.Module):
    """Adds a share of the token before, over the border of a row too, as a convolution does."""

    def __init__(self, norm: nn.Module, share: float) -> None:
        super().__init__()
        self.norm, self.share = norm, share

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return x + self.share * nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]


class Shaken(nn.Module):
    """Rounds each number differently at each call, as products of other shapes do."""

    def __init__(self, norm: nn.Module, share: float) -> None:
        super().__init__()
        self.norm, self.share, self.calls = norm, share, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(x) * (1 + self.calls * self.share)


def with_layer(kind: type[Mixed | Shaken], share: float) -> PreTrainedModel:
    model = make("llama", SMALL)
    model.model.layers[1].input_layernorm = kind(model.model.layers[1].input_layernorm, share)
    return model


def batch_of(*lengths: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 320, (n,), generator=generator).tolist() for n in lengths]
    return collate([Example(row, [IGNORE, *row[1:]]) for row in rows])


@torch.no_grad()
@pytest.mark.parametrize("share", [1e-5, 1e-4, 1e-3, 1e-2])
def test_a_leak_below_every_tolerance_is_found(share: float):
    model = with_layer(Mixed, share)
    batch = probe_batch(model.config, model.device)
    single = hidden_states(model, batch)
    model.set_attn_implementation(PACKED)
    packed = hidden_states(model, batch)
    # Likeness alone, with any tolerance that half precision needs, accepts this model.
    assert 0 < (packed - single).norm() / single.norm() < 0.02
    assert not rows_are_isolated(model, batch, packed)
    model.set_attn_implementation("eager")
    assert pack(model) == "LlamaForCausalLM cannot be packed: its rows would see each other"
    assert model.config._attn_implementation == "eager"


@torch.no_grad()
def test_rounding_that_differs_from_call_to_call_is_no_leak():
    model = with_layer(Shaken, torch.finfo(torch.float32).eps)
    batch = probe_batch(model.config, model.device)
    model.set_attn_implementation(PACKED)
    first, second = hidden_states(model, batch), hidden_states(model, batch)
    assert not torch.equal(first, second)
    assert pack(model) is None


def test_the_row_that_is_changed_has_no_token_of_before_and_lies_between_others():
    model = make_model()
    batch = probe_batch(model.config, model.device)
    assert len(PROBE_LENGTHS) == 3
    assert len(set(batch.input_ids[0].tolist())) == sum(PROBE_LENGTHS)
    seen = []
    model.get_input_embeddings().register_forward_hook(lambda _, args, __: seen.append(args[0]))
    model.set_attn_implementation(PACKED)
    states = hidden_states(model, batch)
    assert rows_are_isolated(model, batch, states)
    same = [
        torch.equal(*rows) for rows in zip(*(x.split(PROBE_LENGTHS, 1) for x in seen), strict=True)
    ]
    assert same == [True, False, True]
    assert not (seen[0] == seen[1]).split(PROBE_LENGTHS, 1)[1].any()


def wrong_scale(*args, **given):
    output, _ = packed_attention(*args, **(given | {"scaling": 2 * given["scaling"]}))
    return output, None


def fails(*args, **given):
    raise KeyError("rows\nthat lie end to end")


@pytest.mark.parametrize(
    ("attention", "reason"),
    [
        (wrong_scale, "cannot be packed: its rows would change by "),
        (fails, "cannot be packed (KeyError: 'rows"),
    ],
)
def test_a_wrong_or_failing_attention_is_put_back_and_told_in_one_line(
    attention, reason, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(AttentionInterface._global_mapping, PACKED, attention)
    model = make("llama", SMALL).train()
    told = pack(model)
    assert told is not None
    assert told.startswith(f"LlamaForCausalLM {reason}")
    assert "\n" not in told
    assert model.training
    assert model.config._attn_implementation == "eager"


def test_running_out_of_memory_is_no_reason_to_go_row_by_row(monkeypatch: pytest.MonkeyPatch):
    def exhaust(*args, **given):
        raise torch.OutOfMemoryError

    monkeypatch.setitem(AttentionInterface._global_mapping, PACKED, exhaust)
    model = make("llama", SMALL)
    with pytest.raises(torch.OutOfMemoryError):
        pack(model)
    assert model.config._attn_implementation == "eager"


def test_a_second_check_of_a_packed_model_compares_with_its_own_attention_again():
    model = make("llama", SMALL)
    assert pack(model) is pack(model) is None
    with unpacked(model):
        assert model.config._attn_implementation == "eager"


# What a long row sees is asked of the mask, and no row of the probe is longer than 9 tokens.


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sliding_window": 4096}, None),
        ({"sliding_window": None}, None),
    ],
)
def test_a_window_that_attention_is_told_of_is_accepted_whatever_its_length(changes, told):
    model = make("mistral", SMALL | changes)
    assert pack(model) is told


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"sliding_window": 4096}, "sees a window of 4,096 tokens, but asks attention for all"),
        ({"sliding_window": None}, "sees all tokens, but asks attention for a window of 4,096"),
    ],
)
def test_a_window_that_the_mask_alone_has_is_found_in_a_short_row(mask, message):
    both = {"sliding_window": 4096}
    model = make("mistral", SMALL | (both if mask["sliding_window"] is None else {}))
    for layer in model.model.layers:
        layer.self_attn.config = type(model.config)(**(SMALL | both))
    model.config.sliding_window = mask["sliding_window"]
    attention = model.model.layers[0].self_attn
    attention.config.sliding_window = 4096 if mask["sliding_window"] is None else None
    for layer in model.model.layers:
        layer.self_attn.config = attention.config
        layer.self_attn.config._attn_implementation = PROBED
    with pytest.raises(reach.UnpackableError, match=message):
        check_reach(model, torch.arange(3, 9)[None])


def test_chunks_longer_than_the_probe_are_found():
    chunks = {"layer_types": ["chunked_attention", "full_attention"], "intermediate_size_mlp": 48}
    changes = SMALL | LOCAL | chunks | {"num_experts_per_tok": 1}
    model = make("llama4_text", changes | {"attention_chunk_size": 100})
    assert "its attention sees chunks of a row" in str(pack(model))


@torch.no_grad()
@pytest.mark.parametrize("lengths", [(9, 14, 3), (9, 12, 3), (14, 20, 13), (14,)])
def test_a_row_beyond_the_limit_of_longrope_changes_no_other(lengths: tuple[int, ...]):
    model, plain = make_family("phi3, longrope"), make_family("phi3, longrope")
    assert LONGROPE["original_max_position_embeddings"] == 12
    assert pack(model) is None
    batch = batch_of(*lengths)
    rows = batch.input_ids.split(lengths, 1)
    alone = torch.cat([decoder_of(plain)(input_ids=row)[0] for row in rows], 1)
    torch.testing.assert_close(hidden_states(model, batch), alone, atol=1e-5, rtol=1e-5)


# decoder_of: the part that gives hidden states


@torch.no_grad()
@pytest.mark.parametrize("name", ["llama", "llama4_text", "gpt2", "opt", "mamba", "ctrl"])
def test_the_decoder_gives_what_the_head_makes_logits_of(name: str):
    model = make_family(name)
    ids = torch.arange(3, 12)[None]
    states = decoder_of(model)(input_ids=ids, use_cache=False)[0]
    logits = head_of(model)(states)
    torch.testing.assert_close(logits, model(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_model_whose_prefix_names_no_part_of_it_has_a_decoder():
    sizes = {k: v for k, v in SMALL.items() if k not in ("head_dim",)}
    model = MllamaForCausalLM(MllamaTextConfig(**sizes, cross_attention_layers=[])).eval()
    assert model.base_model is model
    assert decoder_of(model) is model.model
    states = hidden_states(model, probe_batch(model.config, model.device))
    assert states.shape == (1, sum(PROBE_LENGTHS), 32)


class Headless(nn.Module):
    """A model that gives logits only."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(8, 4), nn.Linear(4, 8)

    base_model = property(lambda self: self)

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> None:
        return None


@pytest.mark.parametrize("part", [decoder_of, head_of])
def test_a_model_without_the_part_is_refused_by_name(part):
    with pytest.raises(ConfigError, match=r"Headless has no .* Choose another model.base"):
        part(Headless())


def test_a_model_that_computes_nothing_from_tokens_alone_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
):
    model = make("llama", SMALL)

    def needs_pictures(*args, **given):
        raise ValueError("You must provide pixel_values")

    monkeypatch.setattr(model.model, "forward", needs_pictures)
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM computes no .*pixel_values\)"):
        pack(model)


def test_rows_of_a_batch_keep_their_place_where_they_are_computed_alone():
    model = make_family("phi3, longrope")
    assert pack(model) is None
    batch = batch_of(14, 9)
    swapped = batch_of(14, 9)
    ids = swapped.input_ids.split((14, 9), 1)
    swapped = replace(
        collate([Example(x[0].tolist(), [IGNORE] * x.shape[1]) for x in reversed(ids)])
    )
    long, short = hidden_states(model, batch).split((14, 9), 1)
    torch.testing.assert_close(hidden_states(model, swapped), torch.cat([short, long], 1))
