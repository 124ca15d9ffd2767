"""Seeds for random generators, mixed from any integers."""

import hashlib


def mix_seed(*parts: int) -> int:
    """Return a seed that differs for other integers or another order; any size and sign is allowed.

    Unlike ``hash``, which is equal for -1 and -2 and wraps large integers.

    Returns:
        A number in [0, 2**63), which every generator of torch accepts.
    """
    text = ",".join(f"{part:x}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
