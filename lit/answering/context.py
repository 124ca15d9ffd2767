"""The context of a model, and whether a question and its answer fit into it."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from lit.messages import tr, tr_mark
from lora.config import ConfigError

TOO_LONG = tr_mark(
    "the question has {longest} tokens with its conversation and --max_new_tokens is {asked}, but "
    "the model's context has {limit}: ask a shorter question"
)


def context_length(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model was made for, or None if it does not say."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None)


def check_context(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> None:
    """Check that prompts and answers fit into a model's context.

    Raises:
        ConfigError: They do not.
    """
    limit, longest = context_length(model), max(map(len, prompts), default=0)
    if limit is None or longest + max_new_tokens <= limit:
        return
    values = {"longest": longest, "asked": max_new_tokens, "limit": limit}
    if longest >= limit:
        raise ConfigError(tr(TOO_LONG, **values))
    text = tr_mark(
        "the question has {longest} tokens with its conversation and --max_new_tokens is {asked}, "
        "but the model's context has {limit}: lower --max_new_tokens to {room}, or ask a shorter "
        "question"
    )
    raise ConfigError(tr(text, room=limit - longest, **values))
