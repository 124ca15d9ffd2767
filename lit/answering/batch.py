"""Answers in one batch whose rows have settings of their own and end each by itself."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from lit.answering.batching import can_batch, pad_left, without_defaults
from lit.answering.sampling import (
    RefuseNaN,
    Sampling,
    gumbel_noise,
    nucleus,
    seeded_generator,
)

ROUNDING = 4e-4
"""How far a logit in float32 may be from the same one of a row alone.

The largest difference that was measured on the embedded model is 7e-5, over all tokens of the
vocabulary; ``tests/runs/test_real_model.py`` measures it again.
"""


@torch.inference_mode()
def generate_rows(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    samplings: Sequence[Sampling],
    pad: int,
    take: Callable[[int, int], bool],
) -> list[int]:
    """Answer prompts in one batch, and pass each token on when it is chosen.

    A row's tokens are those of its prompt alone, with ``lit.answering.generation.stream``, for the
    same settings. Logits of a batch differ by rounding errors from those of a row alone. So a row
    ends before the first token that such an error could change, and its number is returned: answer
    that prompt again, alone.

    Args:
        model: In eval mode, in float32 if there are several prompts.
        prompts: Their tokens. The longest prompt and the longest answer together fit into the
            model's context.
        samplings: How tokens are chosen, for each prompt. Of several, those for which ``can_batch``
            is False have to be answered again.
        pad: The token that fills the batch.
        take: Called with a row's number and its next token, stop tokens too. The row ends when it
            returns False, and after its ``max_new_tokens``.

    Returns:
        The numbers of the rows to answer again. None for a single prompt.

    Raises:
        NotFiniteError: The model computes NaN for a row.
    """
    ids, mask = pad_left(prompts, pad, model.device)
    chooser = _Chooser(
        prompts, samplings, 0.0 if len(prompts) == 1 else ROUNDING, torch.device(model.device)
    )
    rows = _Rows(chooser, samplings, take)
    without_defaults(model).generate(  # type: ignore[operator]
        ids,
        attention_mask=mask,
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=max(sampling.max_new_tokens for sampling in samplings),
            pad_token_id=pad,
        ),
        logits_processor=LogitsProcessorList([RefuseNaN(), chooser]),
        stopping_criteria=StoppingCriteriaList([rows]),
    )
    return rows.again


def choose(
    logits: Tensor, sampling: Sampling, generator: torch.Generator, rounding: float
) -> tuple[int, bool]:
    """Choose a token as ``RowSampler`` does, and say whether rounding errors could change it.

    Args:
        logits: (vocabulary,), float32.
        sampling: How it is chosen.
        generator: The row's generator.
        rounding: The largest error of a logit; 0 leaves the question open.

    Returns:
        The token, and whether it is certain to be the same for all logits within ``rounding`` of
        these; never where ``can_batch`` is False.
    """
    if sampling.temperature == 0:
        token = int(logits.argmax())
        return token, rounding == 0 or _leads(logits, 2 * rounding)
    scaled = logits / sampling.temperature
    noise = gumbel_noise(scaled[None], [generator])[0]
    token = int((nucleus(scaled[None], sampling.top_p)[0] + noise).argmax())
    error = 2 * rounding / sampling.temperature
    return token, rounding == 0 or (can_batch(sampling) and _leads(scaled + noise, error))


def _leads(keys: Tensor, margin: float) -> bool:
    """Return whether the largest value is larger than all others by more than a margin."""
    first, second = keys.topk(2).values.tolist()
    return first - second > margin


class _Chooser(LogitsProcessor):
    """Chooses each row's next token, and leaves only that one."""

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        samplings: Sequence[Sampling],
        rounding: float,
        device: torch.device,
    ) -> None:
        self.samplings, self.rounding = samplings, rounding
        self.generators = [
            seeded_generator(sampling, prompt, device)
            for sampling, prompt in zip(samplings, prompts, strict=True)
        ]
        self.chosen: list[tuple[int, bool]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return 0 for the chosen token of each row and -inf for all others."""
        self.chosen = [
            choose(row.float(), sampling, generator, self.rounding)
            for row, sampling, generator in zip(
                scores, self.samplings, self.generators, strict=True
            )
        ]
        tokens = torch.tensor([[token] for token, _ in self.chosen], device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens, 0.0)


class _Rows(StoppingCriteria):
    """Passes the chosen tokens on, and ends each row by itself."""

    def __init__(
        self, chooser: _Chooser, samplings: Sequence[Sampling], take: Callable[[int, int], bool]
    ) -> None:
        self.chooser, self.take = chooser, take
        self.left = [sampling.max_new_tokens for sampling in samplings]
        self.again: list[int] = []

    def __call__(self, input_ids: Tensor, scores: object) -> Tensor:
        """Return whether each row has ended, (rows,)."""
        for row, (token, certain) in enumerate(self.chooser.chosen):
            if self.left[row] == 0:
                continue
            if not certain:
                self.again.append(row)
            going_on = certain and self.take(row, token)
            self.left[row] = self.left[row] - 1 if going_on else 0
        return torch.tensor([left == 0 for left in self.left], device=input_ids.device)
