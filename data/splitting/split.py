"""Split rows into training and validation rows."""

from dataclasses import dataclass

import numpy as np

from data.messages import tr
from data.splitting.duplicates import Overlap, find_overlap
from data.splitting.near_duplicates import find_near_duplicates, joined_groups
from data.store import Store
from data.types import DataError


@dataclass(frozen=True)
class TrainValSplit:
    """The training rows and the validation rows.

    Shapes:
        train_rows, val_rows: (rows,) row indices of ``train`` and of ``val``, each ascending
    report_rows: (rows,) row indices of ``val`` that are kept apart, ascending
    """

    train: Store
    val: Store
    train_rows: np.ndarray
    val_rows: np.ndarray
    report_rows: np.ndarray
    overlap: Overlap
    share_note: str = ""
    """How many rows are held out, if not the share that was asked for."""

    def check_labels(self, source: str) -> None:
        """Check that there is something to learn, and to measure.

        Args:
            source: The source of the training rows, as messages name it.

        Raises:
            DataError: No training row or no validation row has a labeled token.
        """
        if not self.train.label_counts[self.train_rows].any():
            raise DataError(
                tr(
                    "no training row of {source} has a labeled token: raise `max_length`",
                    source=source,
                )
            )
        if len(self.val_rows) and not self.val.label_counts[self.val_rows].any():
            raise DataError(
                tr(
                    "no validation row has a labeled token, so there is no loss to compute: "
                    "raise `max_length`, or give other rows as `val_path`"
                )
            )


def split_train_val(
    train: Store,
    val: Store | None,
    *,
    val_fraction: float,
    seed: int,
    near_duplicates: float | None = None,
    on_duplicate: str = "leave_out",
    report_fraction: float = 0.0,
) -> TrainValSplit:
    """Decide which rows train and which validate, and find duplicates between the two.

    Args:
        train: Rows to train on.
        val: Rows to validate on; None to hold out a share of ``train``.
        val_fraction: The share of rows to hold out, in [0, 1); unused if ``val`` is given.
        seed: Decides which rows are held out.
        near_duplicates: The share of text above which rows are near-duplicates, in (0, 1); None
            to skip the search.
        on_duplicate: ``leave_out`` validation rows that are duplicates, or ``keep`` them.
        report_fraction: The share of the validation rows that is kept apart, in [0, 1).

    Raises:
        DataError: An argument is invalid, or no training or no validation row would remain.
    """
    other = train if val is None else val
    near, note = None, ""
    if near_duplicates is not None:
        stores = [train] if val is None else [train, val]
        conversations = (store.messages(row) for store in stores for row in range(len(store)))
        first = find_near_duplicates(conversations, near_duplicates)
        near = first[: len(train)], first[-len(other) :]
    if val is None:
        hashes = train.question_hashes
        groups = joined_groups(hashes, near[0]) if near else hashes
        train_rows, val_rows = split_by_group(groups, val_fraction, seed)
        note = _share_note(len(val_rows), wanted_rows(len(train), val_fraction))
    else:
        train_rows, val_rows = np.arange(len(train)), np.arange(len(val))
    overlap = find_overlap(
        (train.content_hashes[train_rows], other.content_hashes[val_rows]),
        (train.question_hashes[train_rows], other.question_hashes[val_rows]),
        (near[0][train_rows], near[1][val_rows]) if near else None,
        on_duplicate,
    )
    val_rows = np.delete(val_rows, overlap.left_out)
    val_rows, report_rows = _keep_apart(val_rows, other, report_fraction, seed)
    return TrainValSplit(train, other, train_rows, val_rows, report_rows, overlap, note)


def _keep_apart(
    val_rows: np.ndarray, store: Store, report_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that validate and those that are kept apart; equal questions stay together.

    Raises:
        DataError: ``report_fraction`` is outside [0, 1).
    """
    if not 0 <= report_fraction < 1:
        raise DataError(
            tr(
                "`report_fraction` is {share}: choose a share of at least 0 and below 1",
                share=report_fraction,
            )
        )
    groups = store.question_hashes[val_rows]
    if not report_fraction or len(np.unique(groups)) < 2:
        return val_rows, val_rows[:0]
    stay, apart = split_by_group(groups, report_fraction, seed)
    return val_rows[stay], val_rows[apart]


def split_by_group(
    groups: np.ndarray, val_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split rows in two, with every group entirely on one side.

    Groups are held out in random order as long as they fit into the share; larger ones train. If
    none fits, one of the smallest is held out.

    Args:
        groups: (rows,) equal numbers mean the same group, such as the same question.
        val_fraction: The share of rows to hold out, in [0, 1).
        seed: Decides which groups are held out.

    Returns:
        Row indices of the training and of the validation rows, each ascending.

    Raises:
        DataError: ``val_fraction`` is outside [0, 1), or no training row would remain.
    """
    if not 0 <= val_fraction < 1:
        raise DataError(
            tr(
                "`val_fraction` is {val_fraction}: choose a share of at least 0 and below 1",
                val_fraction=val_fraction,
            )
        )
    rows = np.arange(len(groups))
    if val_fraction == 0:
        return rows, rows[:0]
    unique, group_of_row = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(unique))
    sizes = np.bincount(group_of_row)[order]
    held_out = _fill(sizes, wanted_rows(len(rows), val_fraction)) or [int(sizes.argmin())]
    in_val = np.isin(group_of_row, order[held_out])
    if in_val.all():
        raise DataError(
            tr(
                "{questions} different questions are too few to hold out {val_fraction:.0%} of "
                "them: add rows, or set `val_fraction` to 0",
                questions=len(unique),
                val_fraction=val_fraction,
            )
        )
    return rows[~in_val], rows[in_val]


def wanted_rows(rows: int, val_fraction: float) -> int:
    """Return how many rows a share is: at least one, unless the share is 0."""
    return max(1, round(val_fraction * rows)) if val_fraction else 0


def _fill(sizes: np.ndarray, space: int) -> list[int]:
    """Return the indices of the sizes that fit into a space, taken in order."""
    taken = []
    for i in np.flatnonzero(sizes <= space).tolist():
        if sizes[i] <= space:
            taken.append(i)
            space -= int(sizes[i])
    return taken


def _share_note(held_out: int, wanted: int) -> str:
    if held_out == wanted:
        return ""
    return tr(
        "{held_out} rows are held out, not {wanted}: rows that belong together stay together",
        held_out=held_out,
        wanted=wanted,
    )
