"""Every model family: an answer is the same beside others as alone."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lit.answering.batching import split_batches, why_alone
from lit.answering.generation import GenerationError, answers
from lit.answering.sampling import Sampling
from tests.families.model import make_family
from tests.families.table import FAMILIES, FAST

FAST_ANSWERS = {*FAST, "rwkv", "cpmant", "minimax", "xlstm"} - {"stablelm", "solar_open"}
LENGTHS = (5, 14, 9, 4)
NEW = 3
"""With the questions, more tokens than the limits of the table: 12 of longrope, 8 of DSA."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(x, marks=() if x in FAST_ANSWERS else pytest.mark.families) for x in FAMILIES],
)
def test_an_answer_beside_others_is_the_answer_alone(name: str, tokenizer: PreTrainedTokenizerFast):
    model = make_family(name)
    generator = torch.Generator().manual_seed(0)
    # Every token but the end of a message and of a text, so that no answer ends early.
    prompts = [torch.randint(3, 320, (n,), generator=generator).tolist() for n in LENGTHS]
    model.generation_config.eos_token_id = None
    tokenizer.pad_token = "a"  # not token 0, which some families take for padding by themselves
    sampling = Sampling(max_new_tokens=NEW)
    if FAMILIES[name].mute:
        with pytest.raises(
            GenerationError, match=r"does not generate with xLSTM.*matC_old has wrong"
        ):
            list(answers(model, tokenizer, prompts[:1], sampling))
        return
    together = dict(answers(model, tokenizer, prompts, sampling, batch_size=4))
    for index, prompt in enumerate(prompts):
        ((_, alone),) = answers(make_family(name), tokenizer, [prompt], sampling)
        assert together[index].text == alone.text, index


@pytest.mark.parametrize(
    ("name", "pad", "alone"),
    [
        *(("llama", 5, False), ("gpt2", 5, False), ("qwen3_5_text", 5, False)),
        *(("cpmant", 0, False), ("cpmant", 5, True), ("rwkv", 5, True), ("minimax", 5, True)),
    ],
)
def test_a_family_that_sees_padding_answers_one_question_at_a_time_and_says_so_once(
    name: str, pad: int, alone: bool, capsys: pytest.CaptureFixture
):
    model = make_family(name)
    for _ in range(2):
        batches = split_batches(model, [4, 9, 3], 2, NEW, pad)
        assert batches == ([[2], [0], [1]] if alone else [[2, 0], [1]])
    assert capsys.readouterr().err.count("one question is answered at a time") == alone
    assert (why_alone(model, pad) is not None) == alone


@pytest.mark.parametrize(("name", "limit"), [("phi3, longrope", 12), ("deepseek_v32", 8)])
def test_a_question_whose_answer_would_change_others_is_answered_alone(name: str, limit: int):
    lengths = [limit - NEW, 2, limit - NEW + 1, 3, 40]
    batches = split_batches(make_family(name), lengths, 8, NEW, 5)
    assert batches == [[1, 3, 0], [2], [4]]


def test_one_question_is_not_checked(monkeypatch: pytest.MonkeyPatch):
    model = make_family("rwkv")
    monkeypatch.setattr(model, "forward", None)
    assert split_batches(model, [7], 8, NEW, 5) == [[0]]
    assert split_batches(model, [7, 3], 1, NEW, 5) == [[1], [0]]
