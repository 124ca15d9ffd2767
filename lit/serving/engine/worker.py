"""The one thread that uses the model: it answers jobs, in batches where no answer changes."""

import sys
import threading
import time
import traceback
from dataclasses import dataclass

from data.text import clean
from lit.answering.batch import generate_rows
from lit.answering.batching import can_batch
from lit.answering.sampling import NOT_FINITE, NotFiniteError
from lit.messages import tr
from lit.serving.engine.answer_text import AnswerText
from lit.serving.engine.errors import RequestError
from lit.serving.engine.job import Finish, Job, JobQueue, Piece
from lit.serving.engine.metrics import Metrics
from lit.serving.engine.models import ServedModels
from lit.serving.engine.served_model import ServedModel


class Worker(threading.Thread):
    """Answers the jobs of a queue until it is closed.

    Args:
        models: The models; only this thread uses their weights.
        queue: The jobs.
        metrics: Counts tokens and batches.
        batch_size: The most jobs that are answered at once.
    """

    def __init__(
        self, models: ServedModels, queue: JobQueue, metrics: Metrics, batch_size: int
    ) -> None:
        super().__init__(name="model", daemon=True)
        self.models, self.queue, self.metrics = models, queue, metrics
        self.batch_size = batch_size
        self.running: list[Job] = []

    def run(self) -> None:
        """Answer jobs."""
        while batch := self.queue.take(self.batch_size, self.fits):
            self.running = batch
            for job in self._answer(batch):
                self.metrics.add("repeated_answers_total")
                self._answer([job])
            self.running = []

    def stop(self) -> None:
        """End every job that is not answered yet with an error, and then the thread."""
        for job in [*self.queue.close(), *self.running]:
            job.send(RequestError(503, "the server is stopping", code="stopping"))
            job.cancelled = True

    def fits(self, batch: list[Job], job: Job) -> bool:
        """Return whether a job can be answered together with others.

        They have the same model, and fit into its context side by side: the longest prompt with
        the longest answer. Padding at most doubles the tokens of the prompts. And their tokens are
        chosen in a way that a batch does not change.
        """
        jobs = [*batch, job]
        if job.model != batch[0].model or not all(can_batch(job.sampling) for job in jobs):
            return False
        longest = max(len(job.prompt) for job in jobs)
        answer = max(job.sampling.max_new_tokens for job in jobs)
        context = self.models.get(job.model).batch_context
        return (context is None or longest + answer <= context) and (
            longest * len(jobs) <= 2 * sum(len(job.prompt) for job in jobs)
        )

    def _answer(self, jobs: list[Job]) -> list[Job]:
        """Answer jobs in one batch; return those that have to be answered again, alone."""
        rows = [
            _Row(job, self.models.get(job.model), self.metrics)
            for job in jobs
            if not (job.cancelled or _is_late(job))
        ]
        if not rows:
            return []
        self.metrics.add("batches_total", requests=str(len(rows)))
        model = self.models.use(rows[0].job.model)
        try:
            again = generate_rows(
                model,
                [row.job.prompt for row in rows],
                [row.job.sampling for row in rows],
                rows[0].model.pad,
                lambda row, token: rows[row].take(token),
            )
        except Exception as error:
            if len(rows) > 1:
                # One row, or the size of the batch, may be the reason.
                return [row.job for row in rows if not row.job.ended]
            rows[0].job.send(_failure(error))
            return []
        return [rows[i].job for i in again]


@dataclass
class _Row:
    """The answer of one job while it is generated."""

    job: Job
    model: ServedModel
    metrics: Metrics
    tokens: int = 0

    def __post_init__(self) -> None:
        self.text = AnswerText(self.model.decoder, self.job.stops)

    def take(self, token: int) -> bool:
        """Deliver a token's text; return whether the answer goes on."""
        if self.job.cancelled or _is_late(self.job):
            return False
        self.tokens += 1
        if token in self.model.stops:
            self._finish("stop")
        else:
            self.text.add(token)
            if self.text.stopped:
                self._finish("stop")
            elif self.tokens == self.job.sampling.max_new_tokens:
                self._finish("length")
            else:
                self._deliver()
        return not self.job.ended

    def _deliver(self) -> None:
        shown, delivered = self.text.shown, self.job.delivered
        if not (shown.startswith(delivered) or delivered.startswith(shown)):
            # An answer that is given again alone begins as it did in its batch, see ROUNDING.
            message = "the answer changed while it was generated again; please report this"
            self.job.send(RequestError(500, message, code="answer_changed"))
        elif len(shown) > len(delivered):
            self.job.send(Piece(shown[len(delivered) :]))

    def _finish(self, reason: str) -> None:
        self.text.finish()
        self._deliver()
        # Counted first: who has the answer may ask for the counts.
        self.metrics.add("generated_tokens_total", self.tokens, model=self.job.model)
        self.metrics.add("prompt_tokens_total", len(self.job.prompt), model=self.job.model)
        self.job.send(Finish(reason, self.tokens))


def _is_late(job: Job) -> bool:
    """Return whether a job's time is over; its client is then told."""
    if time.monotonic() < job.deadline:
        return False
    job.send(
        RequestError(503, "the answer was not complete within --request_seconds", code="timeout")
    )
    return True


def _failure(error: Exception) -> RequestError:
    if isinstance(error, NotFiniteError):
        return RequestError(500, NOT_FINITE, code="not_finite")
    # A client learns no more than this; the person at the server sees the reason.
    traceback.print_exc()
    print(tr("error: {error}", error=clean(str(error))), file=sys.stderr, flush=True)
    return RequestError(500, "the model failed; the server's terminal shows the reason")
