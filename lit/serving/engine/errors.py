"""Refusals, with OpenAI's bodies and status codes."""

from typing import Any

from data.text import clean

KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
}
"""OpenAI's type of an error by its status; others are ``server_error``."""


class RequestError(Exception):
    """A request is refused.

    Args:
        status: The HTTP status.
        message: What was asked, what there is, and what to send instead.
        param: The field that is wrong.
        code: A word for programs, such as ``model_not_found``.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """Return the error as OpenAI writes it."""
        error = {
            "message": clean(str(self)),
            "type": KINDS.get(self.status, "server_error"),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}
