"""How a model is asked: its prompts, its stop tokens and its context."""

import copy
import threading
from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.encoder import Encoder
from data.template import continuation_ids
from data.types import RowError
from lit.answering.batching import batch_limit
from lit.answering.context import context_length
from lit.answering.generation import pad_token, stop_tokens
from lit.serving.engine.errors import RequestError
from lit.serving.engine.request import AnswerRequest


class ServedModel:
    """What belongs to one name: how it writes prompts, reads tokens and ends answers.

    Args:
        name: The name.
        model: The model that all names share.
        tokenizer: With its template.
    """

    def __init__(
        self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.name, self._tokenizer = name, tokenizer
        self._encoder = Encoder(tokenizer)
        self.stops = frozenset(stop_tokens(model, tokenizer))
        self.pad = pad_token(model, tokenizer)
        self.context = context_length(model)
        limits = (self.context, batch_limit(model.config))
        self.batch_context = min((limit for limit in limits if limit is not None), default=None)
        """Tokens up to which a row of a batch is answered as alone, or None."""
        # A tokenizer serves one thread at a time: prompts are written while answers are read.
        self.decoder = copy.deepcopy(tokenizer)
        self._lock = threading.Lock()

    def encode(self, request: AnswerRequest) -> list[int]:
        """Return the tokens that the answer follows.

        Raises:
            RequestError: The template refuses the conversation, or it is empty.
        """
        field = "messages" if request.messages else "prompt"
        with self._lock:
            try:
                if request.messages:
                    ids = self._encoder.encode_prompt(request.messages)
                else:
                    ids = continuation_ids(request.text, self._tokenizer)
            except RowError as error:
                raise RequestError(400, str(error), field) from None
        if not ids:
            raise RequestError(400, f"{field} has no tokens: send a text", field)
        return ids

    def answer_length(self, prompt: Sequence[int], request: AnswerRequest) -> int:
        """Return how many tokens the answer may have.

        A length that the request does not give is what the context leaves, and at most the
        default.

        Raises:
            RequestError: The prompt, or the prompt with the length given, exceeds the context.
        """
        asked, tokens = request.sampling.max_new_tokens, len(prompt)
        if self.context is None or tokens + asked <= self.context:
            return asked
        room = self.context - tokens
        field = "messages" if request.messages else "prompt"
        if room < 1:
            raise RequestError(
                400,
                f"the prompt has {tokens} tokens and the model's context {self.context}, which "
                "leaves none for an answer: send a shorter conversation",
                field,
                "context_length_exceeded",
            )
        if request.length_given:
            raise RequestError(
                400,
                f"the prompt has {tokens} tokens and max_tokens is {asked}, but the model's "
                f"context has {self.context}: lower max_tokens to {room}, or send a shorter "
                "conversation",
                "max_tokens",
                "context_length_exceeded",
            )
        return room
