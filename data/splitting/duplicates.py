"""Find duplicates: repeated rows, and rows that validation shares with training."""

from dataclasses import dataclass

import numpy as np

from data.messages import tr, tr_mark
from data.types import DataError, check_choice

ON_DUPLICATE = ("leave_out", "keep")


@dataclass(frozen=True)
class Overlap:
    """Duplicate rows within the training rows and between the training and validation rows.

    Shapes:
        repeated: (n,) training rows that equal an earlier one, except for white space and
            the Unicode form
        left_out: (n,) validation rows to leave out: they equal a training row or an earlier
            validation row
        shared_questions: (n,) validation rows whose question is also a training question, except
            for case, white space and the Unicode form
        near_duplicates: (n,) validation rows that are near-duplicates of a training row; empty
            without a search for them
    """

    repeated: np.ndarray
    left_out: np.ndarray
    shared_questions: np.ndarray
    near_duplicates: np.ndarray

    def __str__(self) -> str:
        """The counts above zero; empty without duplicates."""
        descriptions = {
            tr_mark("training rows repeat another"): self.repeated,
            tr_mark("validation rows left out as duplicates"): self.left_out,
            tr_mark("validation questions also occur in training"): self.shared_questions,
            tr_mark("validation rows are near-duplicates of a training row"): self.near_duplicates,
        }
        return ", ".join(
            tr("{n} {what}", n=len(rows), what=tr(text))
            for text, rows in descriptions.items()
            if len(rows)
        )


def find_repeats(hashes: np.ndarray) -> np.ndarray:
    """Return a mask, (rows,), of the rows that equal an earlier one."""
    repeated = np.ones(len(hashes), dtype=bool)
    repeated[np.unique(hashes, return_index=True)[1]] = False
    return repeated


def find_overlap(
    contents: tuple[np.ndarray, np.ndarray],
    questions: tuple[np.ndarray, np.ndarray],
    near: tuple[np.ndarray, np.ndarray] | None = None,
    on_duplicate: str = "leave_out",
) -> Overlap:
    """Find duplicate rows.

    Args:
        contents: One number for each training and each validation row; equal numbers mean equal
            conversations.
        questions: The same for the first question of each row.
        near: The same for groups of near-duplicates; None if nobody searched for them.
        on_duplicate: ``leave_out`` validation rows that are duplicates, or ``keep`` them.

    Raises:
        DataError: ``on_duplicate`` is unknown, or no validation row would remain.
    """
    check_choice("on_duplicate", on_duplicate, ON_DUPLICATE)
    train, val = contents
    left_out = np.isin(val, train) | find_repeats(val)
    if on_duplicate == "keep":
        left_out[:] = False
    if len(val) and left_out.all():
        raise DataError(
            tr(
                "every validation row is also a training row: give other rows as "
                "`val_path`, or set `on_duplicate` to keep"
            )
        )
    shared = np.isin(questions[1], questions[0]) & ~left_out
    close = np.isin(near[1], near[0]) & ~left_out if near else np.zeros(len(val), dtype=bool)
    return Overlap(*map(np.flatnonzero, (find_repeats(train), left_out, shared, close)))
