"""What passes between the steps of the data's way: plain values, and tensors only at the end."""

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORE = -100
"""The label of a position that has no part in the loss; torch's cross entropy skips it."""


class DataError(ValueError):
    """The data cannot be used as asked; the message says where and what to do."""


class RowError(DataError):
    """One row cannot be used; the message is ``field: reason``."""


class TooLongError(RowError):
    """One row does not fit into max_length."""

    def __init__(self, message: str, tokens: int = 0) -> None:
        super().__init__(message)
        self.tokens = tokens
        """By how many it is too long."""


class Row(NamedTuple):
    """One record of a data file, as it stands there."""

    fields: dict[str, Any]
    file: str
    line: int


class BadRow(NamedTuple):
    """A record that could not be used, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


class Message(NamedTuple):
    """One turn of a conversation; only assistant turns with ``train`` are learned."""

    role: str
    content: str
    train: bool = True


class Example(NamedTuple):
    """A row in tokens: labels equal ids where the model is to learn, IGNORE elsewhere."""

    ids: list[int]
    labels: list[int]
    cut: int = 0
    """Tokens taken out of the prompt to fit max_length."""


@dataclass  # not frozen: Lightning's half precision goes through its fields
class Batch:
    """Rows laid end to end in one sequence, without padding.

    Shapes:
        input_ids, labels, position_ids: (1, tokens)
        cu_seqlens: (rows + 1,), int32; row i is [cu_seqlens[i], cu_seqlens[i + 1])
    """

    input_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    max_seqlen: int
    """Tokens of the longest row."""
    step_labels: int = 0
    """Labeled tokens of the whole optimizer step, over its micro-batches and all ranks."""
    rng_key: int = 0
    """What chance is seeded by, beside the run's seed: the same whichever rank computes it."""

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same batch on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Any) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {k: change(v) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)
