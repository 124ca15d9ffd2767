"""Part rows into those that train and those that are held out."""

from dataclasses import dataclass

import numpy as np

from data.duplicates import Overlap, find_overlap
from data.near_duplicates import find_near_duplicates, joined_groups
from data.store import Store
from data.types import DataError


@dataclass(frozen=True)
class TrainValSplit:
    """The rows that train and those that validate.

    Shapes:
        train_rows, val_rows: (rows,) row indices of ``train`` and of ``val``, each ascending
    """

    train: Store
    val: Store
    train_rows: np.ndarray
    val_rows: np.ndarray
    overlap: Overlap


def split_train_val(
    train: Store,
    val: Store | None,
    *,
    fraction: float,
    seed: int,
    near_duplicates: float | None = None,
    on_duplicate: str = "leave_out",
) -> TrainValSplit:
    """Say which rows train and which validate, and what stands on both sides.

    Args:
        train: Rows to train on.
        val: Rows to validate on; None to hold out a share of ``train``.
        fraction, seed: As in ``split``.
        near_duplicates: As in ``near``; None to look for none.
        on_duplicate: As in ``overlap``.

    Raises:
        DataError: A setting is wrong, or either side would be empty.
    """
    other = train if val is None else val
    close = None
    if near_duplicates is not None:
        stores = [train] if val is None else [train, val]
        texts = (store.messages(row) for store in stores for row in range(len(store)))
        found = find_near_duplicates(texts, near_duplicates)
        close = found[: len(train)], found[-len(other) :]
    if val is None:
        groups = joined_groups(train.questions, close[0]) if close else train.questions
        sides = split(groups, fraction, seed)
    else:
        sides = np.arange(len(train)), np.arange(len(val))

    def both(columns: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return columns[0][sides[0]], columns[1][sides[1]]

    twice = find_overlap(
        both((train.contents, other.contents)),
        both((train.questions, other.questions)),
        both(close) if close else None,
        on_duplicate,
    )
    return TrainValSplit(train, other, sides[0], np.delete(sides[1], twice.left_out), twice)


def split(groups: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Part rows in two, so that no question stands on both sides.

    Args:
        groups: (rows,) equal numbers mark rows with the same question.
        fraction: The share of rows to hold out, in [0, 1).
        seed: Decides which.

    Returns:
        Row indices of the training and of the held-out side, each ascending.

    Raises:
        DataError: Either side would be empty.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"data.val_fraction is {fraction}; it must be in [0, 1)")
    rows = np.arange(len(groups))
    if fraction == 0:
        return rows, rows[:0]
    unique, member = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(unique))
    held_rows = np.bincount(member)[order].cumsum()
    held = order[: max(1, int(np.searchsorted(held_rows, round(fraction * len(rows)), "right")))]
    val = np.isin(member, held)
    if val.all():
        raise DataError(
            f"{len(unique)} different questions are too few to hold out {fraction:.0%} of them; "
            "add rows, or set data.val_fraction to 0"
        )
    return rows[~val], rows[val]
