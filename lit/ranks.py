"""The processes of a run, its ranks: what they tell each other of their ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.utilities import rank_zero_only

from lora.config import ConfigError

if TYPE_CHECKING:  # these cost seconds to import, and a run of one process needs no store
    import lightning as L

    from lit.board import Board

BEAT = 1.0
"""Seconds between two signs of life of a rank."""
SILENCE = 30
"""Beats without a sign of life after which a rank is given up."""
GRACE = 5.0
"""Seconds that a rank has for an end of its own after another rank's."""
GO_ON = "What was saved is kept: go on with the same command and --ckpt_path last"


class Ranks:
    """The ranks of a run as one of them sees them.

    Each shows on a board that it lives, and how it ends, so that the others end too and an error
    that all have is printed once.
    """

    def __init__(self) -> None:
        self.rank = _get_rank() or 0
        # Lightning's own was set when it was imported, which may have been in another process.
        rank_zero_only.rank = self.rank  # type: ignore[attr-defined]
        self.size = 1
        self.children: list[subprocess.Popen] = []
        self.board: Board | None = None
        self.gone: set[int] = set()
        self.over = threading.Event()
        self.ending = threading.Lock()

    def join(self) -> None:
        """Come to the board, where this process was started as one of several.

        Raises:
            ConfigError: SLURM was asked for processes in a way that Lightning does not take.
            OSError: The first rank cannot be reached.
        """
        # torchrun sets one of them, Lightning for the ranks that it starts the other.
        started = {"TORCHELASTIC_RUN_ID", "LOCAL_RANK"} & os.environ.keys()
        size = int(os.environ.get("WORLD_SIZE", 1)) if started else 1
        if not started and self._in_slurm():
            size = int(os.environ["SLURM_NTASKS"])
        if size > 1:
            self._open(size)

    def meet(self, trainer: "L.Trainer") -> None:
        """Start the other ranks of this machine, unless they were started, and join them all.

        Raises:
            ConfigError: The settings do not fit how the processes were started.
        """
        if trainer.world_size != self.size and self.size > 1:
            raise ConfigError(
                f"{self.size} processes were started, but trainer.devices times trainer.num_nodes "
                f"is {trainer.world_size}: make them equal"
            )
        if trainer.world_size == 1:
            return
        from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

        launcher = trainer.strategy.launcher
        if not isinstance(launcher, _SubprocessScriptLauncher):
            name = type(trainer.strategy).__name__
            raise ConfigError(f"trainer.strategy {name} starts no commands: take ddp")
        if self.size == 1 and trainer.num_nodes > 1:
            raise ConfigError(
                f"trainer.num_nodes is {trainer.num_nodes}: start the command on each machine by "
                "torchrun or srun (docs/scale.md)"
            )
        try:
            launcher.launch(lambda: None, trainer=trainer)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.children = list(launcher.procs)
        # Lightning watches this list, and would kill all without a word where one ended.
        launcher.procs.clear()
        if self.size == 1:
            self._open(trainer.world_size)
        trainer.strategy.setup_environment()

    def agree(self, what: dict[str, str]) -> None:
        """See that all ranks have read the same.

        Raises:
            ConfigError: They have not; it names what differs.
        """
        if self.size == 1:
            return
        from torch.distributed import all_gather_object

        told: list[dict[str, str]] = [{} for _ in range(self.size)]
        all_gather_object(told, what)
        for rank, theirs in enumerate(told):
            for name, value in told[0].items():
                if theirs[name] != value:
                    raise ConfigError(
                        f"{name} is {theirs[name]} on rank {rank}, and {value} on rank 0: all "
                        "machines must see the same files"
                    )

    def end(self, code: int, text: str = "", lost: bool = False) -> int:
        """End this process's part: say why, once for all ranks.

        Args:
            code: The exit code.
            text: What is to be said on stderr.
            lost: Whether another rank did not answer: what is said is then found out here.

        Returns:
            The exit code: where another rank's end is the reason, that one's.
        """
        board = self.board
        if board is None:
            self._print(code, text)
            return code
        with self.ending:
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
                self._print(code, text)
            self._see_off(board)
            return code

    def _print(self, code: int, text: str) -> None:
        if not text:
            return
        kind = f"error (rank {self.rank}): " if self.rank else "error: "
        print(f"{kind if code <= 2 else ''}{text}", file=sys.stderr, flush=True)

    @staticmethod
    def _in_slurm() -> bool:
        from lightning.pytorch.plugins.environments import SLURMEnvironment

        if not SLURMEnvironment.detect() or int(os.environ["SLURM_NTASKS"]) == 1:
            return False
        try:
            environment = SLURMEnvironment()
        except RuntimeError as error:
            raise ConfigError(str(error)) from None
        os.environ["MASTER_ADDR"] = environment.main_address
        os.environ["MASTER_PORT"] = str(environment.main_port)
        return True

    def _open(self, size: int) -> None:
        from lit.board import Board

        self.board = Board(self.rank, size)
        self.size = size
        threading.Thread(target=self._watch, args=[self.board], daemon=True, name="ranks").start()

    def _watch(self, board: "Board") -> None:
        seen: dict[int, tuple[int, int]] = {}
        beat = 0
        while not self.over.wait(BEAT):
            beat += 1
            try:
                board.show("beat", str(beat))
                trouble = board.trouble()
                if self.rank == 0 and not trouble:
                    self._listen(board, beat, seen)
                    trouble = bool(self.gone)
            except RuntimeError:
                trouble = True
            if trouble and not self.over.wait(GRACE):
                code = self.end(1, lost=True)
                sys.stdout.flush()
                os._exit(code)

    def _listen(self, board: "Board", beat: int, seen: dict[int, tuple[int, int]]) -> None:
        """Note which ranks have gone: they ended without a word, or are silent for long."""
        self._count_children(board)
        for rank, theirs in board.beats().items():
            if theirs != seen.get(rank, (-1, 0))[0]:
                seen[rank] = theirs, beat
            elif beat - seen[rank][1] > SILENCE and rank not in board.ends():
                self.gone.add(rank)

    def _why_lost(self, board: "Board", code: int) -> tuple[int, str]:
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
        who = ", ".join(map(str, sorted(self.gone))) or "(which is not known)"
        return code, f"rank {who} is gone: it was killed, or cannot be reached. {GO_ON}"

    def _count_children(self, board: "Board") -> None:
        ends = board.ends()
        ranks = enumerate(self.children, 1)
        self.gone |= {rank for rank, child in ranks if child.poll() and rank not in ends}

    def _said(self, board: "Board", text: str) -> bool:
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

    def _see_off(self, board: "Board") -> None:
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


def unreachable(error: BaseException) -> bool:
    """Whether an error says that another rank did not answer."""
    from torch.distributed import DistError

    text = str(error)
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in text or "Connection" in text)
    )
