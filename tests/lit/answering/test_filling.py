"""Answers that take the places of ended ones are the answers alone, and no place stays empty."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from lit.answering.filling import can_fill, fill
from lit.answering.generation import answers
from lit.answering.sampling import Sampling, choosing, seeded_generator
from lora.config import ConfigError
from tests.families.model import make_family
from tests.families.table import FAMILIES, FAST

LENGTHS = (5, 14, 9, 4, 20, 3, 7, 11)
STOPS = list(range(1, 320, 7))
PAD, PLACES = 0, 3
PLAIN = {*("llama", "gpt2", "gpt_neox", "bloom", "stablelm", "solar_open", "qwen3_moe")}
OTHERWISE = {
    *("mistral", "llama4_text"),  # windows and chunks
    *("jamba", "qwen3_5_text", "rwkv"),  # recurrences
    *("phi3, longrope", "deepseek_v32"),  # a limit to what may be in one batch
    "bart",  # its cache stays empty
    "cpmant",  # it sees the padding
}


def make_prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 320, (n,), generator=generator).tolist() for n in LENGTHS]


def alone(model: PreTrainedModel, prompt: list[int], sampling: Sampling) -> list[int]:
    """The tokens that plain ``generate`` gives."""
    ids = torch.tensor([prompt])
    config = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens, eos_token_id=STOPS, pad_token_id=PAD
    )
    generator = seeded_generator(sampling, prompt, torch.device("cpu"))
    output = model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=config,
        logits_processor=choosing(sampling, [generator]),
    )
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [0.0, 3.0])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x, marks=() if x in {*FAST} & PLAIN | {"bloom"} else pytest.mark.families)
        for x in FAMILIES
        if x not in OTHERWISE
    ],
)
def test_an_answer_that_takes_the_place_of_another_is_the_answer_alone(
    name: str, temperature: float
) -> None:
    model = make_family(name)
    if not can_fill(model, PAD):
        assert name not in PLAIN
        return
    sampling, prompts = Sampling(3, temperature, max_new_tokens=12), make_prompts()
    filled = dict(fill(model, enumerate(prompts), sampling, STOPS, PAD, PLACES))
    expected = [alone(model, prompt, sampling) for prompt in prompts]
    assert [filled[index] for index in range(len(prompts))] == expected
    assert temperature == 0 or len(set(map(len, expected))) > 2  # they end one by one


@pytest.mark.parametrize("name", [*sorted(PLAIN), *sorted(OTHERWISE)])
def test_only_families_that_keep_the_keys_of_every_token_are_filled(name: str) -> None:
    assert can_fill(make_family(name), PAD) == (name in PLAIN)


def test_no_place_is_empty_while_a_question_waits_and_no_column_without_a_token(
    tiny_model: PreTrainedModel,
) -> None:
    prompts, sampling = make_prompts(), Sampling(3, 1.2, max_new_tokens=12)
    assert can_fill(tiny_model, PAD)
    taken = given = 0
    seen: list[tuple[int, int]] = []

    def waiting() -> Iterator[tuple[int, list[int]]]:
        nonlocal taken
        for index, prompt in enumerate(prompts):
            taken += 1
            assert taken <= given + PLACES
            yield index, prompt

    def watch(module: object, args: object, inputs: dict[str, Any]) -> None:
        rows, columns = inputs["input_ids"].shape
        if columns == 1:
            seen.append((rows, taken))
            assert {len(layer.keys) for layer in inputs["past_key_values"].layers} == {rows}
            mask = inputs.get("attention_mask")
            assert mask is None or mask.any(0).all()

    tiny_model.register_forward_pre_hook(watch, with_kwargs=True)
    for _ in fill(tiny_model, waiting(), sampling, STOPS, PAD, PLACES):
        given += 1
    assert given == len(prompts)
    assert {rows for rows, taken in seen if taken < len(prompts)} == {PLACES}
    assert max(rows for rows, _ in seen) == PLACES


def test_a_question_that_does_not_fit_into_the_context_is_refused_when_it_begins(
    tiny_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    limit = tiny_model.config.max_position_embeddings
    given = answers(tiny_model, tokenizer, [[5], [6], [7] * limit], Sampling(max_new_tokens=1), 2)
    assert {next(given)[0], next(given)[0]} == {0, 1}
    with pytest.raises(ConfigError, match="ask a shorter question"):
        next(given)
