"""How the ranks of a run end together: each shows that it lives, and how it ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import NoReturn

from lit.distributed.rank_store import RankStore
from lit.run.console import print_error

BEAT = 1.0
"""Seconds between two signs of life of a rank."""
SILENCE = 30
"""Beats without a sign of life after which a rank is given up."""
GRACE = 5.0
"""Seconds that a rank has for an end of its own after another rank's."""
GO_ON = "What was saved is kept: go on with the same command and --ckpt_path last"


class RankWatchdog:
    """Watches over the other ranks from its making on, and ends this one when another is lost.

    Args:
        board: What all ranks show each other.
        children: The processes of the other ranks, where this one started them.
    """

    def __init__(self, board: RankStore, children: list[subprocess.Popen]) -> None:
        self.board, self.rank, self.size = board, board.rank, board.size
        self.children = children
        self.beat, self.code = 0, 1
        self.gone: set[int] = set()
        self.over, self.done = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        threading.Thread(target=self._talk, args=[board], daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def end(self, code: int, text: str = "", lost: bool = False) -> int:
        """End this rank: say why, once for all ranks.

        Args:
            code: The exit code.
            text: What is to be said on stderr.
            lost: Whether another rank did not answer: what is said is then found out here.

        Returns:
            The exit code: where another rank's end is the reason, that one's.
        """
        board = self.board
        with self.lock:
            self.code = code
            self.over.set()
            if threading.current_thread() is threading.main_thread():
                # torchrun and SLURM send it to the ranks that are left.
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
            if lost:
                code, text = self._why_lost(board, code)
            with contextlib.suppress(RuntimeError):
                board.end(code, text)
            if not self._said(board, text):
                print_error(self.rank, code, text)
            self._see_off(board)
            self.done.set()
            return code

    def _talk(self, board: RankStore) -> None:
        """Show life, and look at the others'; end with them."""
        seen: dict[int, tuple[int, int]] = {}
        while not self.over.wait(BEAT):
            self.beat += 1
            try:
                board.show("beat", str(self.beat))
                trouble = board.trouble()
                if self.rank == 0 and not trouble:
                    self._listen(board, self.beat, seen)
                    trouble = bool(self.gone)
            except RuntimeError:
                trouble = True
            if trouble and not self.over.wait(GRACE):
                self._leave(self.end(1, lost=True))

    def _watch(self) -> None:
        """End where the board does not answer, as its machine is no longer in the network."""
        beat, silence = 0, 0
        while silence <= SILENCE:
            time.sleep(BEAT)
            beat, silence = self.beat, silence + 1 if self.beat == beat else 0
        # Whoever called the command has more to do than it.
        if self.done.is_set():
            return
        if not self.over.is_set():
            print_error(self.rank, 1, _gone({0}))
        self._leave(self.code)

    def _leave(self, code: int) -> NoReturn:
        """End although the main thread waits for another rank."""
        sys.stdout.flush()
        os._exit(code)

    def _listen(self, board: RankStore, beat: int, seen: dict[int, tuple[int, int]]) -> None:
        """Note which ranks have gone: they ended without a word, or are silent for long."""
        self._count_children(board)
        for rank, theirs in board.beats().items():
            if theirs != seen.get(rank, (-1, 0))[0]:
                seen[rank] = theirs, beat
            elif beat - seen[rank][1] > SILENCE and rank not in board.ends():
                self.gone.add(rank)

    def _why_lost(self, board: RankStore, code: int) -> tuple[int, str]:
        """Find out why another rank does not answer."""
        try:
            before, deadline = board.beats(), time.monotonic() + GRACE
            while not self.gone and time.monotonic() < deadline:
                if codes := [end.code for end in board.ends().values() if end.code]:
                    return codes[0], ""
                self._count_children(board)
                time.sleep(BEAT / 5)
            if not self.gone:
                after = board.beats()
                silent = {rank for rank, beat in before.items() if after.get(rank) == beat}
                self.gone = silent - board.ends().keys()
        except RuntimeError:
            self.gone = {0}
        return code, _gone(self.gone)

    def _count_children(self, board: RankStore) -> None:
        ends = board.ends()
        ranks = enumerate(self.children, 1)
        self.gone |= {rank for rank, child in ranks if child.poll() and rank not in ends}

    def _said(self, board: RankStore, text: str) -> bool:
        """Whether the first rank says the same; where it lives, it is given the time to."""
        if self.rank == 0 or not text:
            return False
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(RuntimeError):
            while 0 not in self.gone and time.monotonic() < deadline:
                if first := board.ends().get(0):
                    return first.text == text
                time.sleep(BEAT / 10)
        return False

    def _see_off(self, board: RankStore) -> None:
        """The first rank ends last: the others read its board."""
        if self.rank:
            with contextlib.suppress(RuntimeError):
                board.show("left")
            return
        deadline = time.monotonic() + 2 * GRACE
        with contextlib.suppress(RuntimeError):
            others = {*range(1, self.size)} - self.gone
            while others - board.shown("left").keys() and time.monotonic() < deadline:
                time.sleep(BEAT / 20)
        for child in self.children:
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _gone(ranks: set[int]) -> str:
    who = ", ".join(map(str, sorted(ranks))) or "(which is not known)"
    return f"rank {who} is gone: it was killed, or cannot be reached. {GO_ON}"
