"""The answers of both models to the same questions."""

import time
from collections.abc import Callable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.templates.thoughts import split_thought
from lit.answering.batching import can_batch
from lit.answering.generation import Answer, answers, use_model
from lit.answering.sampling import Sampling
from lit.comparison.questions import Question
from lit.comparison.result import AnswerPair
from lit.measures.losses import MODELS
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
    by_model: dict[str, dict[int, Answer]] = {which: {} for which in MODELS}
    done, seconds = 0, 0.0
    while done < len(questions) and (done < required or budget.allows(seconds)):
        start = time.monotonic()
        part = prompts[done : done + batch_size]
        for which in MODELS:
            with use_model(model, which):
                for index, answer in answers(model, tokenizer, part, sampling, batch_size):
                    by_model[which][done + index] = answer
                    on_progress(1)
        done += len(part)
        seconds = time.monotonic() - start
    pairs = []
    for index, question in enumerate(questions[:done]):
        base, tuned = (by_model[which][index] for which in MODELS)
        base_loss, tuned_loss = row_losses[index]
        pairs.append(
            AnswerPair(
                question=question.text,
                base_answer=base.text,
                tuned_answer=tuned.text,
                base_tokens=base.tokens,
                tuned_tokens=tuned.tokens,
                base_stopped=base.stopped,
                tuned_stopped=tuned.stopped,
                reference=question.reference,
                base_loss=base_loss,
                tuned_loss=tuned_loss,
                accepted=question.accepted,
            )
        )
    return pairs


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
