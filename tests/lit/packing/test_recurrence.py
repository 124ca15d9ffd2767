"""Convolutions and recurrences start again at each row's border, inside a packed model."""

import copy
import pickle
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, PreTrainedModel

import lit.packing.pack
import lit.packing.recurrence
from data.planning.batch import collate
from data.types import IGNORE, Batch, Example
from lit.model.loss import summed_loss
from lit.packing.attention import PACKED, UnpackableError
from lit.packing.hidden_states import hidden_states
from lit.packing.pack import pack, restored_attention, unpacked
from lit.packing.recurrence import RowByRow, has_kernels, join_rows, separate_rows
from lit.preflight.meta_step import trace_step
from lora.config import LoRAConfig
from lora.injection import eject, inject, merge, trainable_parameters
from lora.storage.adapter import load_adapter, save_adapter
from lora.targets import barred_layers
from tests.families.model import make_family

LENGTHS = (9, 3, 14, 1, 17)
"""Longer and shorter than a convolution, and than a chunk of a Mamba 2 layer."""
EXPERTS = ("lfm2_moe", "qwen3_next", "granitemoehybrid", "bailing_hybrid", "minimax")
"""Families whose products round by how many tokens an expert was sent; pack() checks by NaN."""
FAST = ("lfm2", "falcon_h1", "qwen3_5_text")
RECURRENT = (
    *(*FAST, "olmo_hybrid", "bamba", "nemotron_h", "zamba", "zamba2", "mamba2", "recurrent_gemma"),
    *EXPERTS,
)


def over(names: Iterable[str]) -> pytest.MarkDecorator:
    marked = [pytest.param(x, marks=() if x in FAST else pytest.mark.families) for x in names]
    return pytest.mark.parametrize("name", marked)


ALL = LoRAConfig(r=2, lora_alpha=4, target_modules="all-linear")


def make_batch(lengths: tuple[int, ...] = LENGTHS, changed: int | None = None) -> Batch:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 320, (n,), generator=generator).tolist() for n in lengths]
    if changed is not None:
        rows[changed] = [323 - token for token in rows[changed]]
    return collate([Example(row, [IGNORE, *row[1:]]) for row in rows])


def adapt(model: PreTrainedModel) -> PreTrainedModel:
    """Put an adapter on that changes what the model computes."""
    inject(model, ALL)
    torch.manual_seed(0)
    for name, parameter in trainable_parameters(model).items():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    return model


def make_packed(name: str = "qwen3_5_text") -> PreTrainedModel:
    model = adapt(make_family(name))
    assert pack(model) is None
    return model


def row_by_row(model: nn.Module) -> list[str]:
    return [path for path, module in model.named_modules() if isinstance(module, RowByRow)]


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """The loss of the rows and the gradient of each part of the adapter that has one."""
    loss = summed_loss(model, make_batch())
    loss.backward()
    found = {name: p.grad for name, p in trainable_parameters(model).items() if p.grad is not None}
    return found | {"loss": loss.detach()}


@over(RECURRENT)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradients_equal_those_of_separate_rows(name: str, checkpointing: bool):
    packed, apart = make_packed(name).train(), adapt(make_family(name)).train()
    if checkpointing:
        packed.gradient_checkpointing_enable({"use_reentrant": False})
    assert row_by_row(packed)
    found, expected = gradients(packed), gradients(apart)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        assert (found[path] - value).norm() <= 1e-5 * value.norm() + 1e-6, path


@over(name for name in RECURRENT if name not in EXPERTS)
@torch.no_grad()
def test_another_row_changes_no_bit(name: str):
    model = make_packed(name)
    before = hidden_states(model, make_batch()).split(LENGTHS, 1)
    for changed in range(len(LENGTHS)):
        after = hidden_states(model, make_batch(changed=changed)).split(LENGTHS, 1)
        same = [torch.equal(x, y) for x, y in zip(before, after, strict=True)]
        assert same == [place != changed for place in range(len(LENGTHS))]


@torch.no_grad()
def states(model: nn.Module) -> Tensor:
    return hidden_states(model, make_batch())


def copied(model: PreTrainedModel) -> PreTrainedModel:
    return wiped(model, copy.deepcopy(model))


def pickled(model: PreTrainedModel) -> PreTrainedModel:
    return wiped(model, pickle.loads(pickle.dumps(model)))


def wiped(model: PreTrainedModel, other: PreTrainedModel) -> PreTrainedModel:
    """The other model, after all parameters of the first one became zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return other


def with_the_state_of_an_unpacked_one(model: PreTrainedModel) -> PreTrainedModel:
    wiped(model, model).load_state_dict(adapt(make_family("qwen3_5_text")).state_dict())
    return model


def adapted_after_packing(model: PreTrainedModel) -> PreTrainedModel:
    model = make_family("qwen3_5_text")
    assert pack(model) is None
    return adapt(model)


def packed_again(model: PreTrainedModel) -> PreTrainedModel:
    assert pack(model) is pack(model) is None
    return model


@pytest.mark.parametrize(
    "change",
    [copied, pickled, with_the_state_of_an_unpacked_one, adapted_after_packing, packed_again],
)
def test_whatever_is_done_to_a_packed_model_it_computes_the_same(change):
    model = change(make_packed())
    (path,) = row_by_row(model)
    assert path.endswith("linear_attn")
    assert model.config._attn_implementation == PACKED
    assert torch.equal(states(model), states(make_packed()))


@pytest.mark.parametrize("take_off", [eject, merge])
def test_layers_come_back_when_adapters_are_taken_off_and_rows_are_not_mixed(take_off):
    model, plain = take_off(make_packed()), take_off(adapt(make_family("qwen3_5_text")))
    assert [type(x) for x in model.modules()] == [type(x) for x in plain.modules()]
    with pytest.raises(UnpackableError, match=r"GatedDeltaNet .* call pack\(model\) again"):
        hidden_states(model, make_batch())
    assert pack(model) is None
    torch.testing.assert_close(states(model), states(plain), atol=1e-5, rtol=1e-5)


def test_a_packed_model_keeps_every_name_and_shows_what_was_replaced():
    for name in ("qwen3_5_text", "granitemoehybrid"):
        packed, plain = make_packed(name), adapt(make_family(name))
        assert packed.state_dict().keys() == plain.state_dict().keys()
        names = [[path for path, _ in model.named_modules()] for model in (packed, plain)]
        assert names[0] == names[1]
        assert barred_layers(packed) == barred_layers(plain)
        (path,) = row_by_row(packed)
        assert type(plain.get_submodule(path)).__name__ in str(packed)


def test_an_adapter_of_a_packed_model_is_loaded_by_others_and_by_peft(tmp_path: Path):
    model = make_packed("granitemoehybrid")
    save_adapter(model, tmp_path, "base")
    other = make_family("granitemoehybrid")
    load_adapter(other, tmp_path)
    ids = make_batch((12,)).input_ids
    with unpacked(model):
        expected = model(ids).logits
    assert torch.equal(other(ids).logits, expected)
    theirs = PeftModel.from_pretrained(make_family("granitemoehybrid"), tmp_path)
    torch.testing.assert_close(theirs(ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_a_packed_model_answers_as_before_while_it_trains():
    model, plain = make_packed().train(), adapt(make_family("qwen3_5_text")).train()
    asked = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    ids = make_batch((7,)).input_ids
    with unpacked(model):
        assert torch.equal(model.generate(ids, **asked), plain.generate(ids, **asked))
    assert row_by_row(model)


def test_a_layer_follows_its_model_into_training_and_back():
    model = make_packed("falcon_h1")
    for mode in (True, False):
        model.train(mode)
        layers = [model.get_submodule(path).original() for path in row_by_row(model)]
        assert [layer.training for layer in layers] == [mode] * len(layers)


@pytest.mark.parametrize("name", ["lfm2", "falcon_h1"])
def test_the_estimate_of_memory_takes_rows_apart_too(name: str):
    real = make_packed(name).train()
    frozen = {x.untyped_storage().data_ptr() for x in (*real.parameters(), *real.buffers())}
    saved: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(save, lambda tensor: tensor):
        save(hidden_states(real, make_batch()))
    expected = sum(x.untyped_storage().nbytes() for key, x in saved.items() if key not in frozen)
    config = make_family(name).config
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    inject(empty, ALL)
    found = trace_step(empty, LENGTHS, 1, gradient_checkpointing=False).activations
    assert row_by_row(empty)
    assert found == pytest.approx(expected, rel=0.05)


def test_a_model_that_is_set_back_has_its_own_layers():
    model = make_family("qwen3_5_text")
    with restored_attention(model):
        pack(model)
        assert row_by_row(model)
    assert row_by_row(model) == []
    failing = make_family("jamba")  # its blocks do not tell their layers where rows begin
    assert "rows would see each other" in str(pack(failing))
    assert row_by_row(failing) == []


def test_a_model_of_attention_alone_has_no_such_layer():
    model = make_family("llama")
    modules = list(model.modules())
    assert separate_rows(model) == 0
    assert list(model.modules()) == modules


class Summed(nn.Module):
    """A recurrence by its name, which notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[dict] = []

    def forward(self, x: Tensor, pair: tuple[Tensor, float], **options: object) -> tuple:
        self.given.append(options)
        return causal_conv1d_fn(x) + pair[0] * pair[1], "state"


def causal_conv1d_fn(x: Tensor) -> Tensor:
    return x.cumsum(1)


def call(model: nn.Sequential, lengths: tuple[int, ...]) -> tuple[Tensor, object]:
    x = torch.arange(1.0, 1 + 2 * sum(lengths)).view(1, -1, 2)
    borders = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    return model[0](x, (x, 2.0), row_lengths=lengths, cu_seq_lens_q=borders, use_cache=False)


def test_rows_are_split_in_every_argument_and_told_of_no_border():
    layer = Summed()
    model = nn.Sequential(layer, layer)
    assert separate_rows(model) == 1
    assert model[0] is model[1]
    output, state = call(model, (2, 3))
    x = torch.arange(1.0, 11.0).view(1, 5, 2)
    expected = torch.cat([x[:, :2].cumsum(1), x[:, 2:].cumsum(1)], 1) + 2 * x
    assert torch.equal(output, expected)
    assert state is None
    assert layer.given == [{"use_cache": False}] * 2
    join_rows(model)
    assert model[0] is model[1] is layer


def test_kernels_are_given_all_rows_with_the_number_of_each_tokens_row():
    layer = Summed()
    model = nn.Sequential(layer)
    separate_rows(model, by_kernel=True)
    call(model, (2, 3))
    (given,) = layer.given
    assert given["seq_idx"].tolist() == [[0, 0, 1, 1, 1]]
    assert given["seq_idx"].dtype == torch.int32
    assert given["cu_seq_lens_q"].tolist() == [0, 2, 5]


def test_kernels_that_do_not_keep_rows_apart_are_not_used(monkeypatch: pytest.MonkeyPatch):
    model, tried = make_family("qwen3_5_text"), []

    def separate(model: nn.Module, by_kernel: bool = False) -> int:
        tried.append(by_kernel)
        return separate_rows(model, by_kernel)

    monkeypatch.setattr(lit.packing.pack, "separate_rows", separate)
    monkeypatch.setattr(lit.packing.pack, "has_kernels", lambda *_: True)
    assert pack(model) is None  # the packages are not installed, and transformers says so
    assert tried == [True, False]
    assert torch.equal(states(adapt(model)), states(make_packed()))


def test_kernels_are_looked_for_on_a_gpu_and_must_all_be_there(monkeypatch: pytest.MonkeyPatch):
    installed = {"causal_conv1d", "fla"}
    monkeypatch.setattr(lit.packing.recurrence, "find_spec", lambda name: name in installed or None)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    expected = {"llama": False, "lfm2": True, "qwen3_5_text": True, "falcon_h1": False}
    expected |= {"bailing_hybrid": False, "minimax": False}
    for name, there in expected.items():
        model = make_family(name)
        assert has_kernels(model, cuda) is there, name
        assert has_kernels(model, cpu) is False
