"""A watchdog on each rank: when a rank ends or is lost, the other ranks end too."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import NoReturn

from lit.distributed.rank_store import RankStore
from lit.messages import tr
from lit.run.console import print_error

INTERVAL = 1.0
"""Seconds between two heartbeats of a rank."""
MAX_MISSED = 30
"""Intervals without a new heartbeat after which a rank counts as lost."""
GRACE = 5.0
"""Seconds that a rank has to end by itself after another rank has ended."""


class RankWatchdog:
    """Publishes heartbeats, watches those of the other ranks, and ends this rank when one is lost.

    Starts two threads when it is created.

    Args:
        store: Connects all ranks.
        children: The processes of the other ranks, if this one started them.
    """

    def __init__(self, store: RankStore, children: list[subprocess.Popen]) -> None:
        self.store, self.rank, self.size = store, store.rank, store.size
        self.children = children
        self.heartbeat, self.code = 0, 1
        self.lost: set[int] = set()
        self.ending, self.ended = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        threading.Thread(target=self._publish_heartbeats, daemon=True).start()
        threading.Thread(target=self._watch_heartbeats, daemon=True).start()

    def end(self, code: int, text: str = "", lost: bool = False) -> int:
        """End this rank: publish how it ends, and print the error once for all ranks.

        Args:
            code: The exit code.
            text: The error to print on stderr.
            lost: Whether another rank did not answer. Then this finds out which, and why.

        Returns:
            The exit code; that of another rank, if this one ends because of it.
        """
        with self.lock:
            self.code = code
            self.ending.set()
            if threading.current_thread() is threading.main_thread():
                # torchrun and SLURM send them to the remaining ranks.
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
            if lost:
                code, text = self._find_cause(code)
            with contextlib.suppress(RuntimeError):
                self.store.publish_end(code, text)
            if not self._rank_0_prints(text):
                print_error(self.rank, code, text)
            self._wait_for_others()
            self.ended.set()
            return code

    def _publish_heartbeats(self) -> None:
        """Publish a heartbeat each interval; end this rank when another failed or is lost."""
        seen: dict[int, tuple[int, int]] = {}
        while not self.ending.wait(INTERVAL):
            self.heartbeat += 1
            try:
                self.store.publish("heartbeat", str(self.heartbeat))
                failed = self.store.any_failed()
                if self.rank == 0 and not failed:
                    self._find_lost_ranks(seen)
                    failed = bool(self.lost)
            except RuntimeError:
                failed = True
            # A rank with the same error ends by itself.
            if failed and not self.ending.wait(GRACE):
                self._exit(self.end(1, lost=True))

    def _watch_heartbeats(self) -> None:
        """End the process when the store blocks, as when its machine has left the network."""
        last, missed = 0, 0
        while missed <= MAX_MISSED:
            time.sleep(INTERVAL)
            last, missed = self.heartbeat, missed + 1 if self.heartbeat == last else 0
        # The command has ended, but the process that called it continues.
        if self.ended.is_set():
            return
        if not self.ending.is_set():
            print_error(self.rank, 1, _lost_message({0}))
        self._exit(self.code)

    def _exit(self, code: int) -> NoReturn:
        """End the process although the main thread waits for another rank."""
        sys.stdout.flush()
        os._exit(code)

    def _find_lost_ranks(self, seen: dict[int, tuple[int, int]]) -> None:
        """Add to ``lost`` the ranks that ended without publishing it, or have no new heartbeat.

        Args:
            seen: By rank, its last heartbeat and the number of ours when it was new; updated.
        """
        self._find_dead_children()
        for rank, heartbeat in self.store.read_heartbeats().items():
            if heartbeat != seen.get(rank, (-1, 0))[0]:
                seen[rank] = heartbeat, self.heartbeat
            elif self.heartbeat - seen[rank][1] > MAX_MISSED and rank not in self.store.read_ends():
                self.lost.add(rank)

    def _find_cause(self, code: int) -> tuple[int, str]:
        """Find out why another rank does not answer.

        Returns:
            The exit code and the error of this rank.
        """
        try:
            before, deadline = self.store.read_heartbeats(), time.monotonic() + GRACE
            while not self.lost and time.monotonic() < deadline:
                if codes := [end.code for end in self.store.read_ends().values() if end.code]:
                    return codes[0], ""
                self._find_dead_children()
                time.sleep(INTERVAL / 5)
            if not self.lost:
                after = self.store.read_heartbeats()
                silent = {rank for rank, last in before.items() if after.get(rank) == last}
                self.lost = silent - self.store.read_ends().keys()
        except RuntimeError:
            self.lost = {0}
        return code, _lost_message(self.lost)

    def _find_dead_children(self) -> None:
        """Add to ``lost`` the ranks whose process failed without publishing how it ended."""
        ends = self.store.read_ends()
        ranks = enumerate(self.children, 1)
        self.lost |= {rank for rank, child in ranks if child.poll() and rank not in ends}

    def _rank_0_prints(self, text: str) -> bool:
        """Return whether rank 0 ends with the same error; gives it time to publish that."""
        if self.rank == 0 or not text:
            return False
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(RuntimeError):
            while 0 not in self.lost and time.monotonic() < deadline:
                if first := self.store.read_ends().get(0):
                    return first.text == text
                time.sleep(INTERVAL / 10)
        return False

    def _wait_for_others(self) -> None:
        """Let rank 0 end last, because the other ranks read its store."""
        if self.rank:
            with contextlib.suppress(RuntimeError):
                self.store.publish("left")
            return
        deadline = time.monotonic() + 2 * GRACE
        with contextlib.suppress(RuntimeError):
            others = {*range(1, self.size)} - self.lost
            while others - self.store.read_others("left").keys() and time.monotonic() < deadline:
                time.sleep(INTERVAL / 20)
        for child in self.children:
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _lost_message(ranks: set[int]) -> str:
    names = ", ".join(map(str, sorted(ranks))) or tr("(unknown)")
    return tr(
        "rank {names} is lost: it was killed or cannot be reached. Checkpoints are kept: "
        "resume with the same command and --ckpt_path last",
        names=names,
    )
