"""Which requests `lit.serve` answers together: only those whose answers are the same as alone."""

import math

import pytest
from transformers import PreTrainedTokenizerFast

from lit.answering.sampling import Sampling
from lit.serving.engine.job import Job, JobQueue
from lit.serving.engine.metrics import Metrics
from lit.serving.engine.models import ServedModels
from lit.serving.engine.worker import Worker
from lora.adapter_set import AdapterSet
from tests.families.model import make_family


def serve(family: str, tokenizer: PreTrainedTokenizerFast) -> ServedModels:
    model = make_family(family)
    return ServedModels(model, AdapterSet(model), {"base": tokenizer})


def job(tokens: int, temperature: float = 0.0, top_p: float = 1.0) -> Job:
    sampling = Sampling(temperature=temperature, top_p=top_p, max_new_tokens=2)
    return Job("base", [5] * tokens, sampling, (), math.inf, lambda event: None)


@pytest.mark.parametrize(("family", "alone"), [("llama", False), ("rwkv", True)])
def test_a_family_that_sees_padding_is_not_batched(
    family: str, alone: bool, tokenizer: PreTrainedTokenizerFast
):
    reason = serve(family, tokenizer).answers_change_in_batches()
    assert ("answers otherwise in a batch" in reason) == alone


@pytest.mark.parametrize(("prompt", "together"), [(4, True), (11, False)])
def test_a_request_that_would_change_others_is_answered_alone(
    prompt: int, together: bool, tokenizer: PreTrainedTokenizerFast
):
    # Rotary factors change beyond 12 tokens.
    worker = Worker(serve("phi3, longrope", tokenizer), JobQueue(4), Metrics(), 4)
    jobs = [job(4), job(prompt)]
    assert worker.fits(jobs[:1], jobs[1]) == together


@pytest.mark.parametrize(
    ("temperature", "top_p", "together"),
    [(0.0, 1.0, True), (0.0, 0.9, True), (0.8, 1.0, True), (0.8, 0.9, False)],
)
@pytest.mark.parametrize("first", [True, False])
def test_requests_that_draw_from_a_nucleus_are_answered_alone(
    temperature: float,
    top_p: float,
    together: bool,
    first: bool,
    tokenizer: PreTrainedTokenizerFast,
):
    worker = Worker(serve("llama", tokenizer), JobQueue(4), Metrics(), 4)
    jobs = [job(4, temperature, top_p), job(4)]
    one, other = jobs if first else reversed(jobs)
    assert worker.fits([one], other) == together
