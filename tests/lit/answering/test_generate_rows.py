"""Rows of a batch have the answers of their prompts alone, or are answered again."""

import pytest
import torch
from conftest import TEXT
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lit.answering import batch
from lit.answering.batch import choose, generate_rows
from lit.answering.generation import stop_tokens, stream
from lit.answering.sampling import Sampling

SAMPLINGS = [
    Sampling(seed=1, temperature=0.0, max_new_tokens=12),
    Sampling(seed=2, temperature=0.7, max_new_tokens=20),
    Sampling(seed=3, temperature=1.5, max_new_tokens=3),
    Sampling(seed=4, temperature=0.3, max_new_tokens=16),
]
NUCLEUS = Sampling(seed=5, temperature=1.0, top_p=0.9, max_new_tokens=6)


def generated(
    model: PreTrainedModel, prompts: list[list[int]], samplings: list[Sampling], stops: list[int]
) -> tuple[list[list[int]], list[int]]:
    """Return the tokens of each row, and the rows to answer again."""
    tokens: list[list[int]] = [[] for _ in prompts]

    def take(row: int, token: int) -> bool:
        tokens[row].append(token)
        return token not in stops

    return tokens, generate_rows(model, prompts, samplings, 0, take)


def test_a_row_has_the_tokens_of_its_prompt_alone_whatever_the_others_are(
    tiny_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts = [tokenizer(text)["input_ids"][: 9 + 7 * i] for i, text in enumerate([*TEXT, "Why?"])]
    stops = stop_tokens(tiny_model, tokenizer)
    alone = []
    for prompt, sampling in zip(prompts, SAMPLINGS, strict=True):
        (tokens,), again = generated(tiny_model, [prompt], [sampling], stops)
        assert not again
        # The independent reference: what lit.chat streams.
        answer = stream(tiny_model, tokenizer, prompt, sampling, lambda text: None)
        assert len(tokens) == answer.tokens
        assert tokenizer.decode(tokens, skip_special_tokens=True).strip() == answer.text.strip()
        alone.append(tokens)
    together, again = generated(tiny_model, prompts, SAMPLINGS, stops)
    for row, tokens in enumerate(together):
        whole = alone[row][: len(tokens)] if row in again else alone[row]
        assert tokens == whole
    assert len(again) < len(prompts)


def test_a_row_ends_before_the_first_token_that_rounding_could_change(
    tiny_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch, "ROUNDING", 1e3)
    prompts = [tokenizer(text)["input_ids"] for text in TEXT]
    tokens, again = generated(tiny_model, prompts, SAMPLINGS[:3], [])
    assert tokens == [[], [], []]
    assert again == [0, 1, 2]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_no_error_within_the_bound_changes_a_choice_that_is_called_certain(
    sampling: Sampling,
) -> None:
    random = torch.Generator().manual_seed(0)
    bound, certain_ones = 0.02, 0
    for case in range(150):
        logits = torch.randn(12, generator=random) * 3
        token, certain = choose(logits, sampling, torch.Generator().manual_seed(case), bound)
        certain_ones += certain
        for _ in range(12):
            error = (torch.rand(12, generator=random).round() * 2 - 1) * bound
            other, _ = choose(logits + error, sampling, torch.Generator().manual_seed(case), 0.0)
            assert other == token or not certain
    assert certain_ones > 75


def test_a_near_tie_is_not_certain() -> None:
    logits = torch.tensor([1.0, 1.0005, -3.0])
    assert choose(logits, Sampling(), torch.Generator(), 1e-3) == (1, False)
    assert choose(logits, Sampling(), torch.Generator(), 1e-4) == (1, True)


def test_a_token_of_a_nucleus_is_never_certain_in_a_batch_and_always_alone() -> None:
    logits = torch.tensor([9.0, 0.0, -3.0])
    token, certain = choose(logits, NUCLEUS, torch.Generator().manual_seed(0), 1e-9)
    assert not certain
    assert choose(logits, NUCLEUS, torch.Generator().manual_seed(0), 0.0) == (token, True)


def test_a_row_with_a_nucleus_is_as_in_lit_chat_alone_and_given_back_in_a_batch(
    tiny_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts = [tokenizer(text)["input_ids"] for text in TEXT[:2]]
    (tokens,), again = generated(tiny_model, prompts[:1], [NUCLEUS], [])
    answer = stream(tiny_model, tokenizer, prompts[0], NUCLEUS, lambda text: None)
    assert not again
    assert tokenizer.decode(tokens[: answer.tokens], skip_special_tokens=True).strip() == (
        answer.text.strip()
    )
    (first, other), again = generated(tiny_model, prompts, [NUCLEUS, SAMPLINGS[1]], [])
    assert 0 in again
    assert not first
    assert other
