"""Answers in a batch where a waiting question takes the place of each answer that ends."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

from lit.answering.batching import batch_limit, probe_questions
from lit.answering.context import check_context
from lit.answering.rows import Rows, Steps, is_plain
from lit.answering.sampling import Sampling, choosing, seeded_generator
from lit.packing.rounding import difference, tolerance

_known: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()
"""Whether an answer may join others, for each model that was asked."""


@torch.inference_mode()
def fill(
    model: PreTrainedModel,
    questions: Iterable[tuple[int, Sequence[int]]],
    sampling: Sampling,
    stops: Sequence[int],
    pad: int,
    batch_size: int,
) -> Iterator[tuple[int, list[int]]]:
    """Answer questions, each as soon as there is a place for it.

    The prompts that begin together are computed together. Then their keys and values join those of
    the answers under way, and transformers generates until the first of them ends.

    Args:
        model: In eval mode, one that ``can_fill``.
        questions: The number and the prompt of each. The next one is taken when it can begin.
        sampling: How tokens are chosen.
        stops: The tokens that end an answer.
        pad: The token that fills shorter rows up.
        batch_size: The most answers under way.

    Yields:
        The number and the new tokens of an answer, with its stop token, when it ends.

    Raises:
        ConfigError: A prompt and its answer do not fit into the model's context.
        NotFiniteError: The model computes NaN.
    """
    steps = Steps(model, stops, pad)
    waiting, answers, parts = iter(questions), list[_Answer](), list[Rows]()
    while True:
        if new := list(islice(waiting, batch_size - len(answers))):
            prompts = [prompt for _, prompt in new]
            check_context(model, prompts, sampling.max_new_tokens)
            generators = [seeded_generator(sampling, prompt, model.device) for prompt in prompts]
            parts.append(steps.begin(prompts, choosing(sampling, generators)))
            first = parts[-1].ids[:, -1:].tolist()
            answers += map(_Answer, (number for number, _ in new), generators, first)
        if not answers:
            return
        parts = [rows := steps.join(parts)]
        left = [answer.left(sampling.max_new_tokens, stops) for answer in answers]
        if all(left):
            generators = [answer.generator for answer in answers]
            columns = rows.ids.shape[1]
            rows = steps.go_on(rows, choosing(sampling, generators), min(left))
            for answer, tokens in zip(answers, rows.ids[:, columns:].tolist(), strict=True):
                answer.tokens += tokens
        else:
            yield from ((x.number, x.tokens) for x, n in zip(answers, left, strict=True) if not n)
            answers = [answer for answer, n in zip(answers, left, strict=True) if n]
            if answers:
                rows.keep([row for row, n in enumerate(left) if n])
        parts = [rows] if answers else []


def can_fill(model: PreTrainedModel, pad: int) -> bool:
    """Return whether an answer that joins others is the same as alone; found out once.

    Args:
        model: In eval mode.
        pad: The token that fills shorter rows up.
    """
    if model not in _known:
        # With a limit, a row's answer depends on the rows that it meets.
        _known[model] = batch_limit(model.config) is None and _joins(model, pad)
    return _known[model]


@torch.inference_mode()
def _joins(model: PreTrainedModel, pad: int) -> bool:
    """Return whether a short question is answered alike alone and after it joined longer ones."""
    short, long = (question.tolist() for question in probe_questions(model, pad))
    steps, seen = Steps(model, (), pad), _Seen()
    record = LogitsProcessorList([seen])
    try:
        alone = steps.begin([short], record)
        if not is_plain(alone.cache):
            return False
        steps.go_on(alone, record, 1)
        expected = seen.logits
        # The short question is filled up when it begins, and again when it joins the longest one.
        together = [short, long], [[*long, *short]]
        joined = steps.join([steps.begin(prompts, record) for prompts in together])
        steps.go_on(joined, record, 1)
    except Exception:
        return False  # the groups of lit.answering.batching say what fails
    change = difference(expected[:, None], seen.logits[:1, None], (1,))
    # Where numbers are not finite, no answer is right, and generating stops with the reason.
    return not isfinite(change) or change <= 2 * tolerance(model, expected)


@dataclass
class _Answer:
    """An answer under way."""

    number: int
    generator: torch.Generator
    tokens: list[int]

    def left(self, most: int, stops: Sequence[int]) -> int:
        """Return how many tokens it may still have; 0 after a stop token."""
        return 0 if self.tokens[-1] in stops else most - len(self.tokens)


class _Seen(LogitsProcessor):
    """Remembers the last logits, (rows, vocabulary)."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the logits unchanged."""
        self.logits = scores
        return scores
