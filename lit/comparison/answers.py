"""The answers of both models to the same questions."""

from collections.abc import Callable, Sequence

from torchmetrics.text import CHRFScore
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.templates.thoughts import split_thought
from lit.answering.generation import Answer, answers, use_model
from lit.answering.sampling import Sampling
from lit.comparison.losses import MODELS
from lit.comparison.questions import Question
from lit.comparison.result import AnswerPair


def answer_all(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    prompts: Sequence[Sequence[int]],
    row_losses: Sequence[tuple[float, float]],
    sampling: Sampling,
    batch_size: int,
    on_progress: Callable[[int], None],
) -> list[AnswerPair]:
    """Answer questions with both models.

    Args:
        model: With an adapter, in eval mode.
        tokenizer: Its tokenizer.
        questions: The questions.
        prompts: Their tokens.
        row_losses: (base, tuned) losses of the reference answers of the first questions.
        sampling: How both models draw tokens.
        batch_size: Answers generated at a time.
        on_progress: Called with 1 after each answer.
    """
    by_model: dict[str, dict[int, Answer]] = {which: {} for which in MODELS}
    for which in MODELS:
        with use_model(model, which):
            for index, answer in answers(model, tokenizer, prompts, sampling, batch_size):
                by_model[which][index] = answer
                on_progress(1)
    pairs = []
    for index, question in enumerate(questions):
        base, tuned = (by_model[which][index] for which in MODELS)
        base_loss, tuned_loss = row_losses[index] if index < len(row_losses) else (None, None)
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
            )
        )
    return pairs


def chrf(pairs: Sequence[AnswerPair]) -> dict[str, float] | None:
    """Return the chrF of each model's answers, 0 to 100; None without reference answers.

    What a model thinks before an answer is no part of it.
    """
    known = [pair for pair in pairs if pair.reference]
    if not known:
        return None
    references = [[split_thought(str(pair.reference))[1].strip()] for pair in known]
    scores = {}
    for which in MODELS:
        texts = [split_thought(getattr(pair, f"{which}_answer"))[1].strip() for pair in known]
        scores[which] = 100 * float(CHRFScore(n_word_order=0)(texts, references))
    return scores
