"""The tokens that end an answer."""

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lit.answering.generation import stop_tokens

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
