"""The bodies of answers as OpenAI writes them, whole and in pieces."""

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

DONE = "data: [DONE]\n\n"
"""The end of a stream."""


class Bodies:
    """Writes the bodies of one answer.

    Args:
        model: The name of the model.
        chat: Whether it answers a conversation, or continues a text.
        prompt_tokens: Tokens of the prompt.
    """

    def __init__(self, model: str, chat: bool, prompt_tokens: int) -> None:
        self.chat, self.prompt_tokens = chat, prompt_tokens
        self._common = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, reason: str, tokens: int) -> dict[str, Any]:
        """Return a complete answer."""
        content: dict[str, Any] = {"text": text}
        if self.chat:
            content = {"message": {"role": "assistant", "content": text}}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason}
        return {
            **self._common,
            "object": "chat.completion" if self.chat else "text_completion",
            "choices": [choice],
            "usage": self._usage(tokens),
        }

    def first(self) -> str:
        """Return what a stream begins with: the role."""
        return self._chunk({"role": "assistant", "content": ""}, None) if self.chat else ""

    def piece(self, text: str) -> str:
        """Return a piece of a stream."""
        return self._chunk({"content": text} if self.chat else text, None)

    def last(self, reason: str, tokens: int, usage: bool) -> str:
        """Return the end of a stream: the reason, the token counts if asked, and the mark."""
        end = self._chunk({} if self.chat else "", reason)
        counts = self._event([], self._usage(tokens)) if usage else ""
        return end + counts + DONE

    def _chunk(self, content: Any, reason: str | None) -> str:
        named = {"delta" if self.chat else "text": content}
        return self._event([{"index": 0, **named, "logprobs": None, "finish_reason": reason}], None)

    def _event(self, choices: Sequence[dict[str, Any]], usage: dict[str, int] | None) -> str:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        body = {**self._common, "object": kind, "choices": choices, "usage": usage}
        return event(body)

    def _usage(self, tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        }


def event(body: dict[str, Any]) -> str:
    """Return a server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
