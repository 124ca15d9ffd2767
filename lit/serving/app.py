"""The routes of the server."""

import sys
import time
import traceback

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from lit.report.sign_test import sign_test
from lit.serving.engine.errors import RequestError
from lit.serving.guard import Guard
from lit.serving.page import page
from lit.serving.service import Service, answer


def create_app(service: Service, host: str, api_key: str | None) -> FastAPI:
    """Return the application.

    Args:
        service: The models and the queue; the worker runs.
        host: As in ``Guard``.
        api_key: As in ``Guard``.
    """
    # Its own documentation pages would load scripts from the network.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, host=host, api_key=api_key)
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(Exception, _refuse)
    html, policy = page(service.models.names, service.defaults.sampling)
    started = int(time.time())

    def described(name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": started, "owned_by": "lit-lora"}

    @app.get("/")
    async def show_page() -> Response:
        headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        return HTMLResponse(html, headers=headers)

    @app.get("/v1/models")
    async def list_models() -> Response:
        return JSONResponse(
            {"object": "list", "data": [described(name) for name in service.models.names]}
        )

    @app.get("/v1/models/{name}")
    async def show_model(name: str) -> Response:
        return JSONResponse(described(service.models.get(name).name))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await answer(service, request, True)

    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        return await answer(service, request, False)

    @app.get("/health")
    async def health() -> Response:
        alive = service.worker.is_alive()
        return JSONResponse({"status": "ok" if alive else "failed"}, 200 if alive else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        gauges = {
            "waiting_requests": len(service.queue),
            "running_requests": len(service.worker.running),
        }
        return PlainTextResponse(service.metrics.render(gauges), media_type="text/plain")

    @app.get("/votes/interval")
    async def interval(request: Request) -> Response:
        counts = [request.query_params.get(name, "") for name in ("wins", "losses")]
        if not all(c.isascii() and c.isdecimal() and len(c) < 5 for c in counts):
            raise RequestError(400, "wins and losses must be whole numbers below 10000")
        return JSONResponse(sign_test(int(counts[0]), int(counts[1]))._asdict())

    return app


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        error = RequestError(error.status_code, f"{request.method} here: {error.detail}")
    elif not isinstance(error, RequestError):
        traceback.print_exception(error, file=sys.stderr)
        error = RequestError(500, "the server failed; its terminal shows the reason")
    return JSONResponse(error.body(), error.status)
