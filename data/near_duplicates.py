"""Near-duplicates: rows that share most of their text, found by MinHash."""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from data.types import DataError, Message

LETTERS = 5
PERMUTATIONS = 128


def find_near_duplicates(
    conversations: Iterable[Sequence[Message]], threshold: float
) -> np.ndarray:
    """Mark rows that are nearly equal; takes about a millisecond and 5 KB a row.

    Args:
        conversations: What is compared, but for case, white space and system turns.
        threshold: The share of 5-letter pieces that two rows have in common, in (0, 1).

    Returns:
        (rows,) the first row that each one is near to; its own number where there is none.

    Raises:
        DataError: The threshold is none, or datasketch is not installed.
    """
    if not 0 < threshold < 1:
        raise DataError(f"data.near_duplicates is {threshold}; it must be in (0, 1), like 0.8")
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise DataError(
            "data.near_duplicates needs datasketch: pip install --constraint constraints.txt "
            "--editable .[near]"
        ) from None
    index = MinHashLSH(threshold, PERMUTATIONS)
    first: list[int] = []
    sketches: dict[int, MinHash] = {}
    for row, messages in enumerate(conversations):
        sketch = MinHash(PERMUTATIONS, hashfunc=zlib.crc32)
        sketch.update_batch(_pieces(messages))
        # The index gives candidates; the sketches say how near they are.
        close = [i for i in index.query(sketch) if sketches[i].jaccard(sketch) >= threshold]
        first.append(min(close, default=row))
        if not close:
            index.insert(row, sketch)
            sketches[row] = sketch
    return np.array(first, dtype=np.int64)


def joined_groups(*groups: np.ndarray) -> np.ndarray:
    """(rows,) equal numbers for rows that are equal in any of several groupings, or by a chain."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(groups[0])
    heads = [np.unique(g, return_index=True, return_inverse=True)[1:] for g in groups]
    ends = np.concatenate([index[member] for index, member in heads])
    starts = np.tile(np.arange(rows), len(groups))
    graph = coo_array((np.ones(len(ends), dtype=np.int8), (starts, ends)), shape=(rows, rows))
    return connected_components(graph, directed=False)[1]


def _pieces(messages: Sequence[Message]) -> list[bytes]:
    said = [turn.content for turn in messages if turn.role != "system"]
    text = " ".join(" ".join(said).casefold().split())
    return list({text[i : i + LETTERS].encode() for i in range(max(1, len(text) - LETTERS + 1))})
