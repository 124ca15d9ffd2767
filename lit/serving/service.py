"""How a request for text is answered: checked, queued, and returned whole or in pieces."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from lit.messages import english
from lit.serving.bodies import Bodies, event
from lit.serving.engine.errors import RequestError
from lit.serving.engine.job import Event, Finish, Job, JobQueue, Piece
from lit.serving.engine.metrics import Metrics
from lit.serving.engine.models import ServedModels
from lit.serving.engine.request import AnswerRequest, Defaults, parse_json, read_request
from lit.serving.engine.worker import Worker
from lit.serving.guard import read_body

GONE = 499
"""The status that metrics count for a client that went away."""


@dataclass
class Service:
    """What the routes need.

    Args:
        models: The models.
        queue: The jobs that wait.
        worker: Answers them.
        metrics: Counters.
        defaults: How answers are chosen where a request does not say it.
        request_seconds: How long a request may take, from its arrival to the end of its answer.
    """

    models: ServedModels
    queue: JobQueue
    worker: Worker
    metrics: Metrics
    defaults: Defaults
    request_seconds: float

    def submit(
        self, request: AnswerRequest, prompt: list[int], events: "asyncio.Queue[Event]"
    ) -> Job:
        """Queue a request; its events come into the queue given.

        Raises:
            RequestError: The prompt is too long, or the queue is full or closed.
        """
        length = self.models.get(request.model).answer_length(prompt, request)
        loop = asyncio.get_running_loop()

        def deliver(new: Event) -> None:
            # The loop is closed where the server ended before the worker.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(events.put_nowait, new)

        job = Job(
            request.model,
            prompt,
            replace(request.sampling, max_new_tokens=length),
            request.stops,
            time.monotonic() + self.request_seconds,
            deliver,
        )
        self.queue.put(job)
        return job


async def answer(service: Service, request: Request, chat: bool) -> Response:
    """Answer a request for text, and count it."""
    start, name = time.monotonic(), "unknown"

    def count(status: int) -> None:
        service.metrics.add("requests_total", model=name, status=str(status))
        if name != "unknown":
            seconds = time.monotonic() - start
            service.metrics.add("request_seconds_sum", seconds, model=name)
            service.metrics.add("request_seconds_count", model=name)

    try:
        # What it refuses is for a program.
        with english():
            asked = read_request(parse_json(await read_body(request)), chat, service.defaults)
            model = service.models.get(asked.model)
            name = model.name
            prompt = await asyncio.to_thread(model.encode, asked)
        events: asyncio.Queue[Event] = asyncio.Queue()
        job = service.submit(asked, prompt, events)
    except RequestError as error:
        count(error.status)
        raise
    bodies = Bodies(name, chat, len(prompt))
    headers = {"X-Ignored-Fields": _header(asked.ignored)} if asked.ignored else {}
    if asked.stream:
        stream = _stream(service, job, events, bodies, asked.usage, count)
        headers["Cache-Control"] = "no-cache"
        # A client may go away before the stream has begun, and then nothing in it is run.
        gone = BackgroundTask(service.queue.cancel, job)
        return StreamingResponse(
            stream, media_type="text/event-stream", headers=headers, background=gone
        )
    return await _whole(service, request, job, events, bodies, count, headers)


async def _stream(
    service: Service,
    job: Job,
    events: "asyncio.Queue[Event]",
    bodies: Bodies,
    usage: bool,
    count: Callable[[int], None],
) -> AsyncIterator[str]:
    """Yield an answer's events; a client that goes away ends the generation."""
    status = GONE
    try:
        yield bodies.first()
        while True:
            new = await events.get()
            if isinstance(new, Piece):
                yield bodies.piece(new.text)
            elif isinstance(new, Finish):
                status = 200
                yield bodies.last(new.reason, new.tokens, usage)
                return
            else:
                status = new.status
                yield event(new.body())
                return
    finally:
        service.queue.cancel(job)
        count(status)


async def _whole(
    service: Service,
    request: Request,
    job: Job,
    events: "asyncio.Queue[Event]",
    bodies: Bodies,
    count: Callable[[int], None],
    headers: dict[str, str],
) -> Response:
    """Return a complete answer; a client that goes away ends the generation."""
    status, pieces = GONE, []
    gone = asyncio.create_task(_disconnected(request))
    getting = asyncio.create_task(events.get())
    try:
        while True:
            await asyncio.wait({getting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                return Response(status_code=GONE)
            new = getting.result()
            getting = asyncio.create_task(events.get())
            if isinstance(new, Piece):
                pieces.append(new.text)
            elif isinstance(new, Finish):
                status = 200
                body = bodies.whole("".join(pieces), new.reason, new.tokens)
                return JSONResponse(body, headers=headers)
            else:
                status = new.status
                raise new
    finally:
        gone.cancel()
        getting.cancel()
        service.queue.cancel(job)
        count(status)


async def _disconnected(request: Request) -> None:
    """Wait until the client goes away; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _header(names: tuple[str, ...]) -> str:
    """Return names of fields as a header's value, which a stranger chose."""
    return ", ".join(name for name in names if name.isascii() and name.isidentifier())[:1000]
