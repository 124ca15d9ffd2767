"""The conversation of a request: roles of OpenAI, and texts."""

import json
from typing import Any

from data.text import replace_surrogates
from data.types import Message, kind_of
from lit.serving.engine.errors import RequestError

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
"""The role in the template for each role of OpenAI that has a text."""
MAX_MESSAGES = 10_000


def read_messages(body: dict[str, Any]) -> tuple[Message, ...]:
    """Return the turns of a request's conversation.

    Raises:
        RequestError: They are missing, have an unknown role, or are not text.
    """
    value = body.get("messages")
    if not (isinstance(value, list) and 0 < len(value) <= MAX_MESSAGES):
        raise RequestError(
            400, f"messages must be a list of 1 to {MAX_MESSAGES} messages", "messages"
        )
    return tuple(_message(message, f"messages[{i}]") for i, message in enumerate(value))


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise RequestError(400, f"{where} is {kind_of(value)}; it must be an object", where)
    role = value.get("role")
    if not (isinstance(role, str) and role in ROLES):
        shown = json.dumps(role, ensure_ascii=True)[:80]
        raise RequestError(
            400, f"{where}.role is {shown}; it must be one of {', '.join(ROLES)}", f"{where}.role"
        )
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(part, f"{where}.content[{i}]") for i, part in enumerate(content))
    if not isinstance(content, str):
        raise RequestError(
            400, f"{where}.content is {kind_of(content)}; it must be text", f"{where}.content"
        )
    return Message(ROLES[role], replace_surrogates(content))


def _part(part: Any, where: str) -> str:
    if (
        isinstance(part, dict)
        and part.get("type") == "text"
        and isinstance(text := part.get("text"), str)
    ):
        return text
    raise RequestError(
        400, f'{where} must be {{"type": "text", "text": …}}: models read text', where
    )
