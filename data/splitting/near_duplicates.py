"""Find near-duplicates, rows that share most of their text, by MinHash."""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from data.messages import tr
from data.text import fold
from data.types import DataError, Message

SHINGLE_CHARS = 5
PERMUTATIONS = 128


def find_near_duplicates(
    conversations: Iterable[Sequence[Message]], threshold: float
) -> np.ndarray:
    """Group rows that are nearly equal; takes about a millisecond and 5 KB a row.

    Args:
        conversations: The rows; case, white space, the Unicode form and system turns are ignored.
        threshold: The setting ``near_duplicates``: the share of 5-letter pieces that two rows must
            have in common, in (0, 1).

    Returns:
        (rows,) equal numbers for near-duplicates, also where only a chain of other rows connects
        them.

    Raises:
        DataError: The threshold is outside (0, 1), or datasketch is not installed.
    """
    if not 0 < threshold < 1:
        raise DataError(
            tr(
                "`near_duplicates` is {threshold}: choose a share between 0 and 1, such as 0.8",
                threshold=threshold,
            )
        )
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise DataError(
            tr(
                "`near_duplicates` needs datasketch: pip install --constraint "
                "constraints.txt --editable .[near]"
            )
        ) from None
    index = MinHashLSH(threshold, PERMUTATIONS)
    groups = Groups()
    sketches: dict[int, MinHash] = {}
    row_of_sketch: dict[bytes, int] = {}
    for row, messages in enumerate(conversations):
        groups.add()
        sketch = MinHash(PERMUTATIONS, hashfunc=zlib.crc32)
        sketch.update_batch(_shingles(messages))
        # Equal rows need no place of their own in the index.
        if (same := row_of_sketch.setdefault(sketch.hashvalues.tobytes(), row)) != row:
            groups.join(row, same)
            continue
        # The index returns candidates only; comparing the sketches gives the similarity.
        for other in index.query(sketch):
            if not groups.joined(row, other) and sketches[other].jaccard(sketch) >= threshold:
                groups.join(row, other)
        index.insert(row, sketch)
        sketches[row] = sketch
    return np.array([groups.first(row) for row in range(len(groups.parents))], dtype=np.int64)


class Groups:
    """Rows in groups that grow together (a union-find)."""

    def __init__(self) -> None:
        self.parents: list[int] = []

    def add(self) -> None:
        """Add a row, in a group of its own."""
        self.parents.append(len(self.parents))

    def first(self, row: int) -> int:
        """Return the first row of a row's group."""
        while (parent := self.parents[row]) != row:
            self.parents[row] = row = self.parents[parent]
        return row

    def joined(self, row: int, other: int) -> bool:
        """Return whether two rows are in one group."""
        return self.first(row) == self.first(other)

    def join(self, row: int, other: int) -> None:
        """Make the groups of two rows one."""
        low, high = sorted((self.first(row), self.first(other)))
        self.parents[high] = low


def joined_groups(*groups: np.ndarray) -> np.ndarray:
    """Merge several groupings of the same rows.

    Args:
        groups: (rows,) each; equal numbers mean the same group.

    Returns:
        (rows,) equal numbers for rows that share a group in any grouping, directly or by a chain.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(groups[0])
    unique = [np.unique(g, return_index=True, return_inverse=True)[1:] for g in groups]
    first_of_group = np.concatenate([first[member] for first, member in unique])
    row_of_edge = np.tile(np.arange(rows), len(groups))
    edges = np.ones(len(row_of_edge), dtype=np.int8)
    graph = coo_array((edges, (row_of_edge, first_of_group)), shape=(rows, rows))
    return connected_components(graph, directed=False)[1]


def _shingles(messages: Sequence[Message]) -> list[bytes]:
    """Return the distinct 5-letter pieces of a conversation."""
    contents = [turn.content for turn in messages if turn.role != "system"]
    text = " ".join(fold(" ".join(contents)).split())
    starts = range(max(1, len(text) - SHINGLE_CHARS + 1))
    return list({text[i : i + SHINGLE_CHARS].encode() for i in starts})
