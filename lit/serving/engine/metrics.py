"""Counters of a server, in Prometheus' text format."""

import threading
from collections import Counter
from collections.abc import Mapping

HELP = {
    "requests_total": "Requests for an answer, by model and HTTP status; 499: the client went away",
    "prompt_tokens_total": "Tokens of the prompts that were answered, by model",
    "generated_tokens_total": "Tokens that were generated for clients, by model",
    "request_seconds_sum": "Seconds from a request to the end of its answer, by model",
    "request_seconds_count": "Requests whose seconds are counted, by model",
    "batches_total": "Batches that were generated, by number of requests",
    "repeated_answers_total": "Answers of a batch that were generated again alone, to be exact",
    "waiting_requests": "Requests that wait in the queue",
    "running_requests": "Requests that are being answered",
}
GAUGES = {"waiting_requests", "running_requests"}
PREFIX = "lit_serve_"


class Metrics:
    """Counts by name and labels; safe for threads."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self._lock = threading.Lock()

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Add to a counter; its name is a key of HELP."""
        assert name in HELP, name
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += value  # type: ignore[assignment]

    def render(self, gauges: Mapping[str, float]) -> str:
        """Return all counters, and gauges by name, as Prometheus reads them."""
        with self._lock:
            values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = dict(self._counts)
        values |= {(name, ()): value for name, value in gauges.items()}
        lines = []
        for name, text in HELP.items():
            lines += [
                f"# HELP {PREFIX}{name} {text}",
                f"# TYPE {PREFIX}{name} {'gauge' if name in GAUGES else 'counter'}",
            ]
            lines += [
                f"{PREFIX}{name}{_labels(labels)} {value:.10g}"
                for (counted, labels), value in sorted(values.items())
                if counted == name
            ]
        return "\n".join(lines) + "\n"


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    # Values are names of models and numbers, which need no escape.
    inner = ",".join(f'{name}="{value}"' for name, value in labels)
    return f"{{{inner}}}" if inner else ""
