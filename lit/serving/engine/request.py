"""A request's fields: known ones are checked, unknown ones are ignored and named."""

import json
import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from data.text import replace_surrogates
from data.types import Message, kind_of
from lit.answering.sampling import Sampling
from lit.serving.engine.errors import RequestError
from lit.serving.engine.messages import read_messages
from lora.config import ConfigError

MAX_STOPS = 4
KNOWN = {
    *("model", "messages", "prompt", "stream", "stream_options", "temperature", "top_p", "seed"),
    *("max_tokens", "max_completion_tokens", "stop", "n"),
}
NO_MEANING = {"user", "metadata", "store", "safety_identifier", "service_tier", "prompt_cache_key"}
"""Fields that change no answer, so that ignoring them needs no word."""


@dataclass(frozen=True)
class Defaults:
    """How answers are chosen where a request does not say it.

    Args:
        sampling: Its seed counts only with ``fixed_seed``.
        fixed_seed: Whether a request without a seed gets the one of ``sampling``, or a random one.
    """

    sampling: Sampling
    fixed_seed: bool = False


@dataclass(frozen=True)
class AnswerRequest:
    """A request for one answer.

    Args:
        model: The name of the model.
        messages: The conversation; empty for a text to continue.
        text: The text to continue.
        sampling: How tokens are chosen.
        length_given: Whether the request says how long the answer may be.
        stops: Texts before which the answer ends.
        stream: Whether the answer comes in pieces.
        usage: Whether the last piece of a stream has the token counts.
        ignored: The fields that were not read.
    """

    model: str
    messages: tuple[Message, ...]
    text: str
    sampling: Sampling
    length_given: bool
    stops: tuple[str, ...]
    stream: bool
    usage: bool
    ignored: tuple[str, ...]


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a request's body.

    Raises:
        RequestError: It is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise RequestError(400, f"the body is not JSON: {reason}") from None
    if not isinstance(value, dict):
        raise RequestError(400, f"the body is {kind_of(value)}; send a JSON object")
    return value


def read_request(body: dict[str, Any], chat: bool, defaults: Defaults) -> AnswerRequest:
    """Check a request's fields.

    Args:
        body: The JSON object.
        chat: Whether it has ``messages``, or a ``prompt`` to continue.
        defaults: For what the request leaves open.

    Raises:
        RequestError: A known field cannot be used.
    """
    model = _get(body, "model", lambda value: isinstance(value, str), "the name of a model")
    if model is None:
        raise RequestError(400, "model is missing; GET /v1/models lists the models", "model")
    n = _get(body, "n", _is_whole, "1")
    if n not in (None, 1):
        raise RequestError(400, f"n is {n}; one answer is given to a request, so it must be 1", "n")
    options = _get(body, "stream_options", lambda value: isinstance(value, dict), "an object") or {}
    sampling, length_given = _sampling(body, defaults)
    return AnswerRequest(
        model=model,
        messages=read_messages(body) if chat else (),
        text="" if chat else _prompt(body),
        sampling=sampling,
        length_given=length_given,
        stops=_stops(body),
        stream=bool(_get(body, "stream", lambda value: isinstance(value, bool), "true or false")),
        usage=bool(
            _get(options, "include_usage", lambda value: isinstance(value, bool), "true or false")
        ),
        ignored=tuple(sorted(set(body) - KNOWN - NO_MEANING)),
    )


def _get(body: dict[str, Any], name: str, valid: Callable[[Any], bool], allowed: str) -> Any:
    """Return a field, or None if it is absent or null."""
    value = body.get(name)
    if value is not None and not valid(value):
        shown = json.dumps(value, ensure_ascii=True)[:80]
        raise RequestError(400, f"{name} is {shown}; it must be {allowed}", name)
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # A whole number of JSON may have any size, and one beyond a float's is no setting.
    whole = _is_whole(value) and abs(value) < 2**63
    return whole or (isinstance(value, float) and math.isfinite(value))


def _sampling(body: dict[str, Any], defaults: Defaults) -> tuple[Sampling, bool]:
    """Return how tokens are chosen, and whether the request gives the length."""
    given: dict[str, Any] = {
        "temperature": _get(body, "temperature", _is_number, "0, or 0.001 or more"),
        "top_p": _get(body, "top_p", _is_number, "above 0 and at most 1"),
        "seed": _get(body, "seed", _is_whole, "a whole number from 0 to 2**63 - 1"),
    }
    # The newer name counts where a client sends both.
    lengths = [
        _get(body, name, _is_whole, "1 or more") for name in ("max_completion_tokens", "max_tokens")
    ]
    length = next((length for length in lengths if length is not None), None)
    given["max_new_tokens"] = length
    sampling = defaults.sampling
    if not defaults.fixed_seed:
        sampling = replace(sampling, seed=secrets.randbits(63))
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return replace(sampling, **chosen), length is not None
    except ConfigError as error:
        name = str(error).partition(" ")[0].removeprefix("--")
        name = "max_tokens" if name == "max_new_tokens" else name
        raise RequestError(400, f"{name} {str(error).partition(' ')[2]}", name) from None


def _stops(body: dict[str, Any]) -> tuple[str, ...]:
    def valid(value: Any) -> bool:
        texts = [value] if isinstance(value, str) else value
        return (
            isinstance(texts, list)
            and len(texts) <= MAX_STOPS
            and all(isinstance(text, str) and text for text in texts)
        )

    value = _get(body, "stop", valid, f"a text, or a list of up to {MAX_STOPS} texts")
    return (value,) if isinstance(value, str) else tuple(value or ())


def _prompt(body: dict[str, Any]) -> str:
    value = body.get("prompt")
    texts = [value] if isinstance(value, str) else value
    if not (isinstance(texts, list) and len(texts) == 1 and isinstance(texts[0], str)):
        raise RequestError(400, "prompt must be one text, or a list of one text", "prompt")
    return replace_surrogates(texts[0])
