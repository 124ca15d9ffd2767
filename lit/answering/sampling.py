"""How the next token is chosen from the logits, for each row of a batch by itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from data.seeds import mix_seed
from lit.messages import tr, tr_mark
from lora.config import ConfigError

NOT_FINITE = tr_mark(
    "the model computes NaN or infinity instead of logits, so there is no "
    "answer: its weights or the adapter are damaged, or the precision is too low"
)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Args:
        seed: With the tokens of a question it seeds the answer: the same question gives the same
            answer, alone and in any batch, up to rounding errors of the logits.
        temperature: 0 takes the most likely token each time.
        top_p: Draw from the most likely tokens that together have this probability.
        max_new_tokens: Tokens that an answer may have.

    Raises:
        ConfigError: A value is out of range.
    """

    seed: int = 42
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        for name, value, valid, allowed in (
            ("seed", self.seed, 0 <= self.seed < 2**63, tr_mark("from 0 to 2**63 - 1")),
            (
                "temperature",
                self.temperature,
                self.temperature == 0 or 1e-3 <= self.temperature < math.inf,
                tr_mark("0, or 0.001 or more"),
            ),
            ("top_p", self.top_p, 0 < self.top_p <= 1, tr_mark("above 0 and at most 1")),
            (
                "max_new_tokens",
                self.max_new_tokens,
                self.max_new_tokens >= 1,
                tr_mark("1 or more"),
            ),
        ):
            if not valid:
                raise ConfigError(
                    tr(
                        "--{name} is {value}; it must be {allowed}",
                        name=name,
                        value=value,
                        allowed=tr(allowed),
                    )
                )


class NotFiniteError(RuntimeError):
    """A model computes NaN, so it has no answer."""

    exit_code = 1


class RefuseNaN(LogitsProcessor):
    """Stops the generation where a logit is NaN: the most likely token would mean nothing.

    Raises:
        NotFiniteError: A logit is NaN, or all logits of a row are infinite.
    """

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the logits, (rows, vocabulary), unchanged."""
        # The largest logit of a row is NaN if one is, and then this comparison is False.
        if not (scores.amax(-1).abs() < torch.inf).all():
            raise NotFiniteError(tr(NOT_FINITE))
        return scores


class RowSampler(LogitsProcessor):
    """Draws each row's next token with a generator of its own, and leaves only that token.

    A row's answer depends on its own logits and seed, and on no other row of the batch.

    Args:
        temperature: The logits are divided by it; above 0.
        top_p: Tokens are drawn from the most likely ones that together have this probability.
        generators: That of each row, on the device of the logits.
    """

    def __init__(
        self, temperature: float, top_p: float, generators: Sequence[torch.Generator]
    ) -> None:
        self.temperature, self.top_p, self.generators = temperature, top_p, generators

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return 0 for the drawn token of each row and -inf for all others, (rows, vocabulary)."""
        logits = nucleus(scores.float() / self.temperature, self.top_p)
        drawn = (logits + gumbel_noise(logits, self.generators)).argmax(-1)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)


def seeded_generator(
    sampling: Sampling, prompt: Sequence[int], device: torch.device
) -> torch.Generator:
    """Return the generator of a prompt's answer."""
    return torch.Generator(device).manual_seed(mix_seed(sampling.seed, *prompt))


def choosing(sampling: Sampling, generators: Sequence[torch.Generator]) -> LogitsProcessorList:
    """Return what leaves only the chosen tokens to transformers' greedy search.

    Args:
        sampling: How they are chosen.
        generators: The generator of each row.
    """
    processors = LogitsProcessorList([RefuseNaN()])
    if sampling.temperature > 0:
        processors.append(RowSampler(sampling.temperature, sampling.top_p, generators))
    return processors


def gumbel_noise(logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Return Gumbel noise of the shape of the logits, (rows, vocabulary), each row from its own.

    The largest of logit + noise is a draw from their softmax. A rounding error of a logit, which
    depends on the shape of the batch, changes it only where two are near a tie.
    """
    noise = torch.empty_like(logits)
    for row, generator in zip(noise, generators, strict=True):
        row.exponential_(generator=generator)
    return -noise.clamp_min(torch.finfo(noise.dtype).tiny).log()


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Return the logits, with -inf for tokens outside the most likely ones of probability top_p.

    Args:
        logits: (rows, vocabulary).
        top_p: In (0, 1]; the most likely token always stays.
    """
    if top_p == 1:
        return logits
    ordered, order = logits.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    # A token stays if those before it have less than top_p.
    outside = probabilities.cumsum(-1) - probabilities >= top_p
    outside[:, 0] = False
    return logits.masked_fill(outside.scatter(1, order, outside), -torch.inf)
