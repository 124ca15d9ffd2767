"""The values that the data steps exchange: plain Python until the last step, then tensors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data.messages import tr

IGNORE = -100
"""The label of a position without loss; the default ``ignore_index`` of torch's cross entropy."""


class DataError(ValueError):
    """The data or an argument cannot be used; the message says where and what to do."""


class RowError(DataError):
    """One row cannot be used; the message is ``field: reason``."""


class TooLongError(RowError):
    """One row has more than ``max_length`` tokens.

    Args:
        message: The reason.
        tokens: Tokens over the limit.
    """

    def __init__(self, message: str, tokens: int = 0) -> None:
        super().__init__(message)
        self.tokens = tokens


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Check that an argument has one of two or more values.

    Raises:
        DataError: It has another value.
    """
    if value not in choices:
        raise DataError(
            tr(
                "`{argument}` is {value!r}: choose {choices}",
                argument=argument,
                value=value,
                choices=one_of(choices),
            )
        )


def check_count(argument: str, value: int) -> None:
    """Check that an argument is 1 or more.

    Raises:
        DataError: It is not.
    """
    if value < 1:
        raise DataError(
            tr("`{argument}` is {value}; it must be 1 or more", argument=argument, value=value)
        )


def one_of(names: Sequence[str]) -> str:
    """Return names as a choice: ``a``, ``a or b``, ``a, b or c``."""
    *first, last = names
    return tr("{names} or {last}", names=", ".join(first), last=last) if first else last


def kind_of(value: object) -> str:
    """Return what a person calls a value of JSON: text, a number, a list."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return tr("true or false")
    kinds: dict[type, str] = {
        str: tr("text"),
        int: tr("a number"),
        float: tr("a number"),
        list: tr("a list"),
        dict: tr("an object"),
    }
    return kinds.get(type(value), tr("of type {kind}", kind=type(value).__name__))


class Row(NamedTuple):
    """One record of a data file, unchanged."""

    fields: dict[str, Any]
    file: str
    line: int


class BadRow(NamedTuple):
    """A record that cannot be used, and the reason."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class Message(NamedTuple):
    """One turn of a conversation; the model learns assistant turns with ``train`` only.

    A text that is learned whole is the only message of its row, with the role ``text``.
    """

    role: str
    content: str
    train: bool = True
    reasoning_content: str = ""
    """What the assistant thinks before the answer, for templates that write it."""


class Example(NamedTuple):
    """A row as tokens: labels equal ids where the model learns, and IGNORE elsewhere."""

    ids: list[int]
    labels: list[int]
    cut: int = 0
    """Tokens removed from the prompt to fit ``max_length``."""
    guarded: int = 0
    """Special tokens in its texts, which are written as ordinary text."""
    messages: Sequence[Message] = ()
    """The turns that it was made of; of their answers that train, it labels all."""
    closed: int = 0
    """Answers before which a thought that the prompt opens is closed, as the template does not."""
    unthought: int = 0
    """Answers of the history that do not train and whose thoughts the template leaves out."""


@dataclass  # not frozen: Lightning's half precision assigns to its fields
class Batch:
    """Rows laid end to end in one sequence, without padding.

    A row is one segment of the sequence. Rows that share a beginning have it once: it is a segment
    of its own, which lies before the rest of each of these rows.

    What the host must know, such as the lengths, is in plain numbers beside the tensors, so that no
    step waits for a device to tell it.

    Shapes:
        input_ids, labels, position_ids: (1, tokens); positions count from the beginning of a row
        cu_seqlens: (segments + 1,), int32; segment i is [cu_seqlens[i], cu_seqlens[i + 1])
        predicting: (labels,), row by row; where the token lies that predicts each labeled token
        targets: (labels,); the labeled tokens
        seen: (keys,), or None if no rows share a beginning; for each segment, where the tokens lie
            of the beginnings that it continues, then its own
        cu_seen: (segments + 1,), int32, or None; those of segment i are
            seen[cu_seen[i] : cu_seen[i + 1]]
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    predicting: Tensor
    targets: Tensor
    lengths: tuple[int, ...]
    """Tokens of each segment."""
    step_labels: int = 0
    """Labeled tokens of the whole optimizer step, over its micro-batches and all ranks."""
    rng_key: int = 0
    """Seeds dropout together with the run's seed; the same on whichever rank the batch runs."""
    paths: tuple[tuple[int, ...], ...] = ()
    """The segments of each row in their order; empty if each row is one segment."""
    seen: Tensor | None = None
    cu_seen: Tensor | None = None

    @property
    def row_lengths(self) -> tuple[int, ...]:
        """Tokens of each row, shared ones included."""
        if not self.paths:
            return self.lengths
        return tuple(sum(self.lengths[segment] for segment in path) for path in self.paths)

    @property
    def label_count(self) -> int:
        """Labeled tokens of this micro-batch."""
        return len(self.targets)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device; from page-locked memory the host does not wait for it."""

        def move(tensor: Tensor) -> Tensor:
            # Lightning asks only for single tensors to be moved without waiting.
            return tensor.to(device, non_blocking=device.type == "cuda" and tensor.is_pinned())

        device = torch.device(device)
        return self._map_tensors(move)

    def pin_memory(self) -> "Batch":
        """Return the batch in page-locked memory."""
        return self._map_tensors(Tensor.pin_memory)

    def _map_tensors(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors: dict[str, Any] = {
            k: function(v) for k, v in values.items() if isinstance(v, Tensor)
        }
        return replace(self, **tensors)
