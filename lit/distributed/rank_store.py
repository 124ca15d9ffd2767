"""The board of a run of several processes: what each shows the others of its life and its end."""

import json
import os
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import PrefixStore, TCPStore

PATIENCE = timedelta(seconds=120)
"""For the first rank to open its board."""


class End(NamedTuple):
    """How a rank ended: its exit code, and what it had to say."""

    code: int
    text: str


class RankStore:
    """A store of torch.distributed at the first rank, or torchrun's. What is computed is not here.

    Every method raises RuntimeError where the store does not answer.

    Args:
        rank: Which rank this process is.
        size: How many there are.

    Raises:
        OSError: The first rank cannot be reached.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        first = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            store = TCPStore(
                *(address, port, None, first, PATIENCE),
                wait_for_workers=False,
                multi_tenant=True,  # the process group's own store is at this port too
            )
        except RuntimeError:
            raise OSError(f"rank 0 cannot be reached at {address}, port {port}") from None
        # torchrun's store outlives a restart, and with it the ends of those that were restarted.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store = PrefixStore(f"lit/{attempt}", store)

    def show(self, what: str, text: str = "") -> None:
        """Show something of this rank."""
        self.store.set(f"{what}/{self.rank}", text)

    def shown(self, what: str) -> dict[int, str]:
        """What other ranks show, of those that do."""
        keys = {rank: f"{what}/{rank}" for rank in range(self.size) if rank != self.rank}
        there = [rank for rank, key in keys.items() if self.store.check([key])]
        return {rank: self.store.get(keys[rank]).decode() for rank in there}

    def end(self, code: int, text: str) -> None:
        """Show that this rank ends, and how."""
        self.show("end", json.dumps([code, text]))
        if code:
            self.store.set("trouble", "")

    def trouble(self) -> bool:
        """Whether a rank ended with an error."""
        return self.store.check(["trouble"])

    def ends(self) -> dict[int, End]:
        """Of the other ranks that ended."""
        return {rank: End(*json.loads(text)) for rank, text in self.shown("end").items()}

    def beats(self) -> dict[int, int]:
        """The last sign of life of the other ranks."""
        return {rank: int(text) for rank, text in self.shown("beat").items()}
