"""The order in which rows are measured where there may not be time for all."""

import numpy as np


def fair_order(rows: int, seed: int = 0) -> list[int]:
    """Return the rows in an order of which every beginning is a random sample of them."""
    return np.random.default_rng(seed).permutation(rows).tolist()
