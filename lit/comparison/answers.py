"""The answers of both models to the same questions."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.templates.thoughts import split_thought
from lit.answering.batching import can_batch
from lit.answering.generation import Answer, answers, use_model
from lit.answering.sampling import Sampling
from lit.comparison.questions import Question
from lit.comparison.result import AnswerPair
from lit.measures.texts import Written
from lit.messages import tr
from lit.run.console import print_rank0
from lit.settings.budget import Budget


def answer_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    prompts: Sequence[Sequence[int]],
    row_losses: Sequence[tuple[float, float] | tuple[None, None]],
    sampling: Sampling,
    batch_size: int,
    required: int,
    budget: Budget,
    on_progress: Callable[[int], None],
) -> list[AnswerPair]:
    """Answer questions with both models, from the first one on, until the time is over.

    Args:
        model: With an adapter, in eval mode.
        tokenizer: Its tokenizer.
        questions: The questions.
        prompts: Their tokens.
        row_losses: (base, tuned) losses of the reference answers; None where not measured.
        sampling: How both models draw tokens.
        batch_size: Answers generated at a time.
        required: Questions at the beginning that are answered in any case.
        budget: The time for the others.
        on_progress: Called with 1 after each answer.
    """
    if batch_size > 1 and not can_batch(sampling):
        print_rank0(
            tr(
                "answers  with --top_p {top_p} and --temperature {temperature} one question is "
                "answered at a time, because a batch would change answers; --top_p 1 is faster",
                top_p=sampling.top_p,
                temperature=sampling.temperature,
            ),
            note=True,
        )

    def generate(prompts: Iterable[Sequence[int]]) -> Iterator[tuple[int, Answer]]:
        return answers(model, tokenizer, prompts, sampling, batch_size)

    base, tuned = _Answers(generate, on_progress), _Answers(generate, on_progress)

    def fitting() -> Iterator[Sequence[int]]:
        """Yield the next prompts as long as both models have time for them."""
        done = len(tuned.answers)
        for more, prompt in enumerate(prompts[done:], 1):
            after = (tuned if done else base).seconds_for(more)
            if done + more > required and not budget.allows(base.longest + after):
                return
            yield prompt

    # The tuned model answers what the base has answered; if it was quicker, there is time for more.
    more = True
    while more:
        with use_model(model, "base"):
            more = base.add(fitting())
        with use_model(model, "tuned"):
            tuned.add(prompts[len(tuned.answers) : len(base.answers)])
    done = len(base.answers)
    return [
        AnswerPair(
            question=question.text,
            base_answer=first.text,
            tuned_answer=second.text,
            base_tokens=first.tokens,
            tuned_tokens=second.tokens,
            base_stopped=first.stopped,
            tuned_stopped=second.stopped,
            reference=question.reference,
            base_loss=losses[0],
            tuned_loss=losses[1],
            accepted=question.accepted,
        )
        for question, first, second, losses in zip(
            questions[:done], base.answers, tuned.answers, row_losses[:done], strict=True
        )
    ]


class _Answers:
    """The answers of one model, and how long they take.

    Args:
        generate: Answers prompts, in any order.
        on_progress: Called with 1 after each answer.
    """

    def __init__(
        self,
        generate: Callable[[Iterable[Sequence[int]]], Iterator[tuple[int, Answer]]],
        on_progress: Callable[[int], None],
    ) -> None:
        self.generate, self.on_progress = generate, on_progress
        self.answers: list[Answer] = []
        self.count, self.seconds, self.longest = 0, 0.0, 0.0

    def add(self, prompts: Iterable[Sequence[int]]) -> bool:
        """Answer further prompts; return whether there were any."""
        began: list[float] = []

        def watched() -> Iterator[Sequence[int]]:
            for prompt in prompts:
                began.append(time.monotonic())
                yield prompt

        found, before = {}, time.monotonic()
        for index, answer in self.generate(watched()):
            now = time.monotonic()
            self.count, self.seconds = self.count + 1, self.seconds + now - before
            self.longest, before = max(self.longest, now - began[index]), now
            found[index] = answer
            self.on_progress(1)
        self.answers += [found[index] for index in range(len(found))]
        return bool(found)

    def seconds_for(self, more: int) -> float:
        """Return about how long further answers take: each its share, all at least the longest."""
        return max(self.longest, more * self.seconds / max(1, self.count))


def written(pairs: Sequence[AnswerPair]) -> list[Written]:
    """Return answers in the form that measures of texts take.

    What a model thinks before an answer is no part of it.
    """
    return [
        Written(
            question=pair.question,
            references=tuple(map(_said, filter(None, (pair.reference, *pair.accepted)))),
            base=_said(pair.base_answer),
            tuned=_said(pair.tuned_answer),
            base_stopped=pair.base_stopped,
            tuned_stopped=pair.tuned_stopped,
        )
        for pair in pairs
    ]


def _said(text: str) -> str:
    return split_thought(text)[1].strip()
