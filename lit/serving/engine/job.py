"""A request that waits for its answer, and the queue of those."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from lit.answering.sampling import Sampling
from lit.serving.engine.errors import RequestError


class Piece(NamedTuple):
    """New text of an answer."""

    text: str


class Finish(NamedTuple):
    """The end of an answer: ``stop`` or ``length``, and the tokens it has with its stop token."""

    reason: str
    tokens: int


Event = Piece | Finish | RequestError


@dataclass(eq=False)
class Job:
    """A prompt and how to answer it.

    Args:
        model: The name of the model.
        prompt: Its tokens.
        sampling: How tokens are chosen.
        stops: Texts before which the answer ends.
        deadline: When it ends at the latest, in ``time.monotonic()``.
        deliver: Called from the worker's thread with each event; a Finish or an error is the last.
    """

    model: str
    prompt: list[int]
    sampling: Sampling
    stops: tuple[str, ...]
    deadline: float
    deliver: Callable[[Event], None]
    cancelled: bool = False
    """Whether nobody waits for the answer any more."""
    ended: bool = False
    """Whether the last event was delivered."""
    delivered: str = ""
    """The text that was delivered."""

    def send(self, event: Event) -> None:
        """Deliver an event; after the last one, or without a client, nothing."""
        if self.ended or self.cancelled:
            return
        if isinstance(event, Piece):
            self.delivered += event.text
        else:
            self.ended = True
        self.deliver(event)


class JobQueue:
    """Jobs in the order they came, up to a limit; safe for threads.

    Args:
        limit: The most jobs that wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, job: Job) -> None:
        """Add a job.

        Raises:
            RequestError: 429, the queue is full; 503, it is closed.
        """
        with self._changed:
            if self._closed:
                raise RequestError(503, "the server is stopping", code="stopping")
            if len(self._waiting) >= self.limit:
                raise RequestError(
                    429, f"{self.limit} requests are waiting: try again later", code="queue_full"
                )
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Give up a job: it leaves the queue, or its generation ends at the next token."""
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)

    def take(self, most: int, fits: Callable[[list[Job], Job], bool]) -> list[Job]:
        """Wait for a job, and take it with others that can be answered in one batch with it.

        The oldest job is always taken.

        Args:
            most: The most jobs to take.
            fits: Whether a job can be added to a batch.

        Returns:
            The jobs, oldest first; none once the queue is closed and empty.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch: list[Job] = []
            for job in list(self._waiting):
                if len(batch) < most and (not batch or fits(batch, job)):
                    batch.append(job)
                    self._waiting.remove(job)
            return batch

    def close(self) -> list[Job]:
        """Accept no more jobs, and return those that wait; they are taken from the queue."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
            return left
