"""What a request must have before anything reads it: a known host, an own origin, the key."""

import asyncio
import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lit.serving.engine.errors import RequestError

OPEN = {"/", "/health"}
"""Paths that need no key: the page, which asks for it, and whether the server lives."""
MAX_BODY = 2**20
"""Bytes of a request."""
BODY_SECONDS = 20.0
"""How long a request's body may take to arrive."""


class Guard:
    """Refuses requests before the application sees them.

    A page of another site may send requests to a local server from its visitor's browser. It can do
    so under its own name, which it lets point here (DNS rebinding): the Host header then has that
    name. Or under ours: the Origin header then has its name.

    Args:
        app: The application.
        host: The host that the server was told to listen on.
        api_key: The key, or None for a server that needs none.
    """

    def __init__(self, app: ASGIApp, host: str, api_key: str | None) -> None:
        self.app, self.api_key = app, api_key
        self.names = {"localhost", host.lower(), socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        if scope["type"] == "http":
            try:
                self._check(Request(scope))
            except RequestError as error:
                await JSONResponse(error.body(), error.status)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, request: Request) -> None:
        host = request.headers.get("host", "")
        if not self._is_own(host):
            raise RequestError(
                403,
                f"the Host header is {host[:80]!r}, which is not this server's name: use its IP "
                "address, or the name given with --host",
                code="host",
            )
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise RequestError(
                403, f"the page {origin[:80]!r} may not use this server", code="origin"
            )
        if self.api_key is None or request.url.path in OPEN:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        # Headers are Latin-1: the bytes that came are compared.
        given, expected = key.strip().encode("latin-1"), self.api_key.encode()
        if not hmac.compare_digest(given, expected) or scheme.lower() != "bearer":
            raise RequestError(
                401, "send the key as the header Authorization: Bearer KEY", code="invalid_api_key"
            )

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            if name in self.names:
                return True
            ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address is no name that a stranger can let point here.
        return True


async def read_body(request: Request) -> bytes:
    """Return a request's body.

    Raises:
        RequestError: It is no JSON, too large or too slow.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # A browser sends JSON to another site only after asking it, and this server never agrees.
        raise RequestError(
            415, f"the Content-Type is {kind[:80]!r}; send application/json", code="content_type"
        )
    too_large = RequestError(413, f"the body has more than {MAX_BODY} bytes", code="too_large")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise too_large
    except TimeoutError:
        message = f"the body did not arrive within {BODY_SECONDS:g} seconds"
        raise RequestError(408, message, code="slow") from None
    except ClientDisconnect:
        raise RequestError(400, "the client went away") from None
    return bytes(body)
