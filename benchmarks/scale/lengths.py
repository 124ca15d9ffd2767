"""How long rows are: of the project's corpora, and of a corpus with a few very long rows."""

import tempfile
from pathlib import Path

import numpy as np

from data.readers.source import Source
from data.store import build
from lit.model.base import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
CORPORA = ROOT / "data" / "corpora"
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct"
MAX_LENGTH = 4096
ROWS = 400_000
HEAVY_MEDIAN, HEAVY_SPREAD, HEAVY_SHORTEST = 180, 1.1, 16
"""Of a lognormal distribution: half of the rows below 180 tokens, one in 100 above 2,300."""


def corpora(rows: int = ROWS) -> np.ndarray:
    """Tokens of rows drawn with replacement from the project's corpora, (rows,)."""
    tokenizer = load_tokenizer(str(MODEL))
    files = sorted([*CORPORA.glob("*.jsonl"), *CORPORA.glob("*.csv")])
    with tempfile.TemporaryDirectory() as cache:
        found = [
            build(Source(str(file)), tokenizer, max_length=MAX_LENGTH, cache=Path(cache)).lengths
            for file in files
        ]
    return np.random.default_rng(0).choice(np.concatenate(found), rows)


def heavy_tailed(rows: int = ROWS) -> np.ndarray:
    """Tokens of rows whose logarithms are normal, cut at 4,096, (rows,)."""
    drawn = np.random.default_rng(0).lognormal(np.log(HEAVY_MEDIAN), HEAVY_SPREAD, rows)
    return np.clip(drawn, HEAVY_SHORTEST, MAX_LENGTH).astype(np.int64)
