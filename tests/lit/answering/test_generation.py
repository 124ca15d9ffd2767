"""The tokens that end an answer, and which answers share a batch."""

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lit.answering.generation import answers, stop_tokens
from lit.answering.sampling import Sampling

PAD, END = 0, 2


@pytest.mark.parametrize(
    ("of_model", "expected"), [(7, [PAD, END, 7]), ([7, 9], [PAD, END, 7, 9]), (None, [PAD, END])]
)
def test_an_answer_ends_with_a_stop_token_of_the_model_the_tokenizer_or_the_template(
    of_model: object,
    expected: list[int],
    tiny_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tiny_model.generation_config.eos_token_id = of_model
    tokenizer.eos_token = "<pad>"  # the template still writes <|im_end|>
    assert stop_tokens(tiny_model, tokenizer) == expected
    tokenizer.chat_template = None
    assert stop_tokens(tiny_model, tokenizer) == [token for token in expected if token != END]


@pytest.mark.parametrize(
    ("temperature", "top_p", "rows"), [(0.0, 0.9, 2), (0.8, 1.0, 2), (0.8, 0.9, 1)]
)
def test_answers_whose_choice_a_batch_could_change_are_given_one_at_a_time(
    temperature: float,
    top_p: float,
    rows: int,
    tiny_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=2)
    list(answers(tiny_model, tokenizer, [[5, 6]] * 2, sampling))  # the check of the family
    seen = set()
    tiny_model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.add(len(kwargs["input_ids"])), with_kwargs=True
    )
    list(answers(tiny_model, tokenizer, [[5, 6], [7, 8, 9]], sampling))
    assert max(seen) == rows  # a question is computed alone, and its answer in the batch
