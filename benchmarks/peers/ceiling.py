"""The machine's ceiling, as a contender: python -m benchmarks.peers.ceiling"""

import torch

from benchmarks.peers.gate import Gate

SIDE = 2048
PRODUCTS = 4
"""Matrix products in one step."""
GFLOP = PRODUCTS * 2 * SIDE**3 / 1e9


def main() -> None:
    """Multiply large float32 matrices, a few products per step."""
    gate = Gate.from_environment()
    left, right = torch.randn(2, SIDE, SIDE).unbind()
    out = torch.empty(SIDE, SIDE)
    while gate.wait():
        for _ in range(PRODUCTS):
            torch.mm(left, right, out=out)


if __name__ == "__main__":
    main()
