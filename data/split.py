"""Part rows into those that train and those that are held out."""

import numpy as np

from data.types import DataError


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
