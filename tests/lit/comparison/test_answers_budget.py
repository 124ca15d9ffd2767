"""Both models answer the same first questions, as many as fit into the time."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from conftest import make_model, moved
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from data.types import Message
from lit.answering.generation import answers, use_model
from lit.answering.sampling import Sampling
from lit.comparison import answers as answers_of_both
from lit.comparison.answers import answer_all
from lit.comparison.questions import Question
from lit.settings import budget
from lit.settings.budget import Budget
from lora.config import LoRAConfig
from lora.injection import inject

QUESTIONS, REQUIRED, PLACES = 16, 4, 3
SAMPLING = Sampling(3, 1.2, max_new_tokens=12)
TOP_P = Sampling(3, 1.2, top_p=0.9, max_new_tokens=12)
"""Answered one at a time."""


class Run(NamedTuple):
    """The answers of both models, and the seconds that they took."""

    base: list[str]
    tuned: list[str]
    seconds: float


@pytest.fixture
def compared(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> tuple[PreTrainedModel, list[list[int]], Callable[[Sampling, float], Run]]:
    """A model with its adapter, prompts, and what answers them within a budget.

    Each forward pass takes a second, whatever it computes.
    """
    model = make_model()
    inject(model, LoRAConfig(r=4))
    moved(model, 0.5)
    model.generation_config.eos_token_id = [*range(1, 320, 9)]
    generator = torch.Generator().manual_seed(0)
    prompts = [
        torch.randint(3, 320, (3 + i % 9,), generator=generator).tolist() for i in range(QUESTIONS)
    ]
    questions = [Question([Message("user", str(i))], None) for i in range(QUESTIONS)]
    now = [0.0]

    def tick(*args: object) -> None:
        now[0] += 1

    model.register_forward_pre_hook(tick)
    for module in (answers_of_both, budget):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def run(sampling: Sampling, seconds: float) -> Run:
        start, told = now[0], list[int]()
        pairs = answer_all(
            *(model, tokenizer, questions, prompts, [(None, None)] * QUESTIONS),
            *(sampling, PLACES, REQUIRED, Budget(seconds), told.append),
        )
        assert [pair.question for pair in pairs] == [str(i) for i in range(len(pairs))]
        assert sum(told) == 2 * len(pairs)
        return Run([x.base_answer for x in pairs], [x.tuned_answer for x in pairs], now[0] - start)

    return model, prompts, run


@pytest.mark.parametrize("sampling", [SAMPLING, TOP_P], ids=["filled", "one at a time"])
def test_both_models_answer_the_first_questions_that_fit_into_the_time(
    sampling: Sampling,
    tokenizer: PreTrainedTokenizerFast,
    compared: tuple[PreTrainedModel, list[list[int]], Callable[[Sampling, float], Run]],
) -> None:
    model, prompts, run = compared
    whole = run(sampling, 1e9)
    for which, texts in (("base", whole.base), ("tuned", whole.tuned)):
        with use_model(model, which):
            alone = [dict(answers(model, tokenizer, [x], sampling))[0].text for x in prompts]
        assert texts == alone
    assert whole.base != whole.tuned
    counts = []
    for share in (0.0, 0.7, 1.5):
        part = run(sampling, share * whole.seconds)
        assert part.base == whole.base[: len(part.base)]
        assert part.tuned == whole.tuned[: len(part.base)]
        counts.append(len(part.base))
        if len(part.base) > REQUIRED:
            # Forecast are the tuned model's answers; those of the base are measured.
            assert part.seconds <= (share + 0.1) * whole.seconds
    assert counts[0] == REQUIRED
    assert counts == sorted(counts)
    assert QUESTIONS / 3 < counts[1] < QUESTIONS
    assert counts[-1] == QUESTIONS
