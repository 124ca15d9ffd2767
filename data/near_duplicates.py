"""Find near-duplicates, rows that share most of their text, by MinHash."""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from data.types import DataError, Message

SHINGLE_CHARS = 5
PERMUTATIONS = 128


def find_near_duplicates(
    conversations: Iterable[Sequence[Message]], threshold: float
) -> np.ndarray:
    """Find rows that are nearly equal; takes about a millisecond and 5 KB a row.

    Args:
        conversations: The rows; case, white space and system turns are ignored.
        threshold: The setting ``near_duplicates``: the share of 5-letter pieces that two rows must
            have in common, in (0, 1).

    Returns:
        (rows,) the index of the first row that each row is a near-duplicate of, or its own index.

    Raises:
        DataError: The threshold is outside (0, 1), or datasketch is not installed.
    """
    if not 0 < threshold < 1:
        raise DataError(
            f"`near_duplicates` is {threshold}: choose a share between 0 and 1, such as 0.8"
        )
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        raise DataError(
            "`near_duplicates` needs datasketch: pip install --constraint constraints.txt "
            "--editable .[near]"
        ) from None
    index = MinHashLSH(threshold, PERMUTATIONS)
    first: list[int] = []
    sketches: dict[int, MinHash] = {}
    for row, messages in enumerate(conversations):
        sketch = MinHash(PERMUTATIONS, hashfunc=zlib.crc32)
        sketch.update_batch(_shingles(messages))
        # The index returns candidates only; comparing the sketches gives the similarity.
        close = [i for i in index.query(sketch) if sketches[i].jaccard(sketch) >= threshold]
        first.append(min(close, default=row))
        if not close:
            index.insert(row, sketch)
            sketches[row] = sketch
    return np.array(first, dtype=np.int64)


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
    text = " ".join(" ".join(contents).casefold().split())
    starts = range(max(1, len(text) - SHINGLE_CHARS + 1))
    return list({text[i : i + SHINGLE_CHARS].encode() for i in starts})
