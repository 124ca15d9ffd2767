"""A key-value store in which each rank publishes its heartbeats and how it ended."""

import json
import os
import sys
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import PrefixStore, TCPStore

from lit.messages import tr

CONNECT_TIMEOUT = timedelta(seconds=120)
"""Time for rank 0 to open the store."""


class RankEnd(NamedTuple):
    """How a rank ended: its exit code, and the error that it reports."""

    code: int
    text: str


class RankStore:
    """A TCPStore of torch.distributed, on rank 0 or torchrun's own. It holds no tensors.

    Every method raises RuntimeError if the store does not answer.

    Args:
        rank: The rank of this process.
        size: Number of ranks.

    Raises:
        OSError: Rank 0 cannot be reached.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        is_server = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            store = TCPStore(
                *(address, port, None, is_server, CONNECT_TIMEOUT),
                wait_for_workers=False,
                multi_tenant=True,  # the process group's own store uses this port too
                use_libuv=sys.platform != "win32",  # torch's Windows build lacks it
            )
        except RuntimeError:
            raise OSError(
                tr("rank 0 cannot be reached at {address}, port {port}", address=address, port=port)
            ) from None
        # torchrun's store outlives a restart, so it still holds how the old ranks ended.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store = PrefixStore(f"lit/{attempt}", store)

    def publish(self, key: str, text: str = "") -> None:
        """Set this rank's value of a key."""
        self.store.set(f"{key}/{self.rank}", text)

    def read_others(self, key: str) -> dict[int, str]:
        """Return the values of a key, by rank, of the other ranks that have published one."""
        keys = {rank: f"{key}/{rank}" for rank in range(self.size) if rank != self.rank}
        published = [rank for rank, full_key in keys.items() if self.store.check([full_key])]
        return {rank: self.store.get(keys[rank]).decode() for rank in published}

    def publish_end(self, code: int, text: str) -> None:
        """Publish how this rank ends."""
        self.publish("end", json.dumps([code, text]))
        if code:
            self.store.set("failed", "")

    def any_failed(self) -> bool:
        """Return whether a rank ended with an error."""
        return self.store.check(["failed"])

    def read_ends(self) -> dict[int, RankEnd]:
        """Return how the other ranks ended, of those that did."""
        return {rank: RankEnd(*json.loads(text)) for rank, text in self.read_others("end").items()}

    def read_heartbeats(self) -> dict[int, int]:
        """Return the number of the last heartbeat of each other rank."""
        return {rank: int(text) for rank, text in self.read_others("heartbeat").items()}
