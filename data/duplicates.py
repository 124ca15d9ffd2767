"""What stands twice: rows that repeat one another, and what validation shares with training."""

from dataclasses import dataclass

import numpy as np

from data.types import DataError

ON_DUPLICATE = ("leave_out", "keep")


@dataclass(frozen=True)
class Overlap:
    """Rows that stand more than once.

    Shapes:
        repeated: (n,) training rows that are equal to an earlier one, but for white space
        left_out: (n,) validation rows left out: equal to a training row or an earlier one
        asked: (n,) validation rows whose question is asked in training too, but for case and space
        near: (n,) validation rows that are nearly a training row, where that was looked for
    """

    repeated: np.ndarray
    left_out: np.ndarray
    asked: np.ndarray
    near: np.ndarray

    def __str__(self) -> str:
        """What there is, in words; empty where nothing stands twice."""
        said = {
            "training rows repeat another": self.repeated,
            "validation rows left out as duplicates": self.left_out,
            "validation questions are asked in training too": self.asked,
            "validation rows are nearly a training row": self.near,
        }
        return ", ".join(f"{len(rows)} {words}" for words, rows in said.items() if len(rows))


def repeats(contents: np.ndarray) -> np.ndarray:
    """(rows,) whether a row is equal to an earlier one."""
    repeated = np.ones(len(contents), dtype=bool)
    repeated[np.unique(contents, return_index=True)[1]] = False
    return repeated


def find_overlap(
    contents: tuple[np.ndarray, np.ndarray],
    questions: tuple[np.ndarray, np.ndarray],
    near: tuple[np.ndarray, np.ndarray] | None = None,
    on_duplicate: str = "leave_out",
) -> Overlap:
    """Find what stands twice.

    Args:
        contents, questions, near: Of the training and of the validation rows, equal numbers for
            what is equal.
        on_duplicate: ``leave_out`` validation rows that are duplicates, or ``keep`` them.

    Raises:
        DataError: on_duplicate is unknown, or leaves nothing to validate on.
    """
    if on_duplicate not in ON_DUPLICATE:
        raise DataError(
            f"data.on_duplicate is {on_duplicate!r}; there are {', '.join(ON_DUPLICATE)}"
        )
    train, val = contents
    seen = np.isin(val, train) | repeats(val)
    if on_duplicate == "keep":
        seen[:] = False
    if len(val) and seen.all():
        raise DataError(
            "every validation row stands among the training rows: give other rows as "
            "data.val_path, or set data.on_duplicate to keep"
        )
    asked = np.isin(questions[1], questions[0]) & ~seen
    close = np.isin(near[1], near[0]) & ~seen if near else np.zeros(len(val), dtype=bool)
    return Overlap(*map(np.flatnonzero, (repeats(train), seen, asked, close)))
