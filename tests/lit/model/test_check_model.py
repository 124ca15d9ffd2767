"""What a person is told of a model before it trains, and which models are refused."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from data.planning.batch import separate
from data.types import IGNORE, Example
from lit.measures.losses import measuring_losses
from lit.model.start_checks import check_model
from lit.packing.decoder import decoder_of
from lit.packing.hidden_states import hidden_states
from lit.packing.pack import share
from lit.packing.probe import shared_probe
from lora.config import ConfigError, LoRAConfig
from lora.injection import inject
from tests.families.model import make_family

REASONS = {
    "jamba": "JambaForCausalLM cannot be packed: its rows would see each other",
    "gpt_neo": "GPTNeoForCausalLM has an attention of its own, which cannot be packed",
    "deepseek_v32": "DeepseekV32ForCausalLM cannot be packed (TypeError: ",
}


def check(model: PreTrainedModel, must_pack: str | None = None, longest: int | None = 5) -> Tensor:
    def call(function: Any, *args: Any) -> Any:
        return function(model, *args)

    return check_model(call, model.config, torch.device("cpu"), must_pack, longest)


@pytest.mark.parametrize("name", REASONS)
def test_a_run_and_a_comparison_say_once_each_why_rows_go_one_by_one(
    name: str, capsys: pytest.CaptureFixture
):
    model = make_family(name)
    inject(model, LoRAConfig(r=2, target_modules="all-linear"))
    rows = [Example(list(range(3, 3 + n)), [IGNORE, *range(4, 3 + n)]) for n in (4, 6)]

    def measure(model: PreTrainedModel) -> None:
        with measuring_losses(model) as losses_of:
            losses_of(rows, lambda _: None)
            losses_of(rows, lambda _: None)

    for told in (check, measure):
        told(model)
        output = capsys.readouterr()
        (line,) = (output.out + output.err).splitlines()
        assert REASONS[name] in line
        assert line.endswith(
            "rows are computed one by one, which is slower and gives the same result"
        )


def test_nothing_is_said_of_a_model_that_is_packed(capsys: pytest.CaptureFixture):
    for name in ("llama", "lfm2"):
        check(make_family(name), must_pack="fsdp2")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", REASONS)
def test_a_strategy_that_needs_packed_rows_refuses_a_model_with_the_same_reason(name: str):
    with pytest.raises(ConfigError) as refused:
        check(make_family(name), must_pack="fsdp2")
    assert str(refused.value).startswith(REASONS[name])
    assert "trainer.strategy fsdp2 cannot train this model" in str(refused.value)


@pytest.mark.parametrize(("longest", "allowed"), [(12, True), (13, False), (None, False)])
def test_sharded_ranks_train_longrope_only_where_no_row_changes_its_frequencies(
    longest: int | None, allowed: bool
):
    model = make_family("phi3, longrope")
    if allowed:
        check(model, "fsdp2", longest)
        return
    with pytest.raises(ConfigError, match=r"phi3 .* rows above 12 tokens.*data.max_length to 12"):
        check(model, "fsdp2", longest)
    check(model, None, longest)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt_neo", "jamba"])
def test_what_is_returned_is_what_the_model_computes_of_separate_rows(name: str):
    model = make_family(name)
    inject(model, LoRAConfig(r=2, target_modules="all-linear"))
    alone = check(model)
    rows = separate(shared_probe(model.config, model.device))
    with torch.no_grad():
        expected = hidden_states(model.eval(), rows)
    torch.testing.assert_close(alone, expected, atol=3e-4, rtol=3e-4)
    assert share(model, alone) == share(model)


def test_the_checks_and_sharing_call_the_model_seven_times():
    # Each call reads all weights, and every run waits for it.
    model, calls = make_family("llama"), []
    inject(model, LoRAConfig(r=2, target_modules="all-linear"))
    decoder_of(model).register_forward_hook(lambda *_: calls.append(model.training))
    assert share(model, check(model)) is None
    assert calls.count(True) == 1
    assert len(calls) == 7
