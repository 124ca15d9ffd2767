"""The processes of a run, its ranks: what they tell each other of their ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.utilities import rank_zero_only

from lora.config import ConfigError

if TYPE_CHECKING:  # these cost seconds to import, and a run of one process needs no store
    import lightning as L
    from torch.distributed import TCPStore

BEAT = 1.0
"""Seconds between two signs of life of a rank."""
SILENCE = 30
"""Beats without a sign of life after which a rank is given up."""
GRACE = 5.0
"""Seconds that a rank has for an end of its own after another rank's."""
GO_ON = "What was saved is kept: go on with the same command and --ckpt_path last"


class End(NamedTuple):
    """How a rank ended: its exit code, and what it had to say."""

    code: int
    text: str


class Ranks:
    """The ranks of a run as one of them sees them.

    Their board is a store of torch.distributed at the first rank. Each shows there that it lives,
    and how it ends, so that the others end too and an error that all have is printed once. What is
    computed never passes here.
    """

    def __init__(self) -> None:
        self.rank = _get_rank() or 0
        # Lightning's own was set when it was imported, which may have been in another process.
        rank_zero_only.rank = self.rank  # type: ignore[attr-defined]
        self.size = 1
        self.children: list[subprocess.Popen] = []
        self.board: TCPStore | None = None
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
        if self.size == 1:
            self._print(code, text)
            return code
        with self.ending:
            self.over.set()
            if threading.current_thread() is threading.main_thread():
                # torchrun and SLURM send it to the ranks that are left.
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
            if lost:
                code, text = self._why_lost(code)
            self._tell(code, text)
            if not self._said(text):
                self._print(code, text)
            self._see_off()
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
        from torch.distributed import TCPStore

        self.size = size
        theirs = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        first = self.rank == 0 and not theirs
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        patience = timedelta(seconds=120 if not first else 30)
        try:
            self.board = TCPStore(
                *(address, port, None, first, patience),
                wait_for_workers=False,
                multi_tenant=True,  # the process group's own store is at this port too
            )
        except RuntimeError:
            raise OSError(f"rank 0 cannot be reached at {address}, port {port}") from None
        threading.Thread(target=self._watch, daemon=True, name="ranks").start()

    def _watch(self) -> None:
        seen: dict[int, tuple[int, int]] = {}
        beat = 0
        while not self.over.wait(BEAT):
            beat += 1
            try:
                self._board.set(f"beat/{self.rank}", str(beat))
                trouble = self._board.check(["trouble"])
                if self.rank == 0 and not trouble:
                    self._listen(beat, seen)
                    trouble = bool(self.gone)
            except RuntimeError:
                trouble = True
            if trouble and not self.over.wait(GRACE):
                code = self.end(1, lost=True)
                sys.stdout.flush()
                os._exit(code)

    def _listen(self, beat: int, seen: dict[int, tuple[int, int]]) -> None:
        """Note which ranks have gone: they ended without a word, or are silent for long."""
        self._count_children()
        for rank, theirs in self._beats().items():
            if theirs != seen.get(rank, (-1, 0))[0]:
                seen[rank] = theirs, beat
            elif beat - seen[rank][1] > SILENCE and rank not in self._ends():
                self.gone.add(rank)

    def _why_lost(self, code: int) -> End:
        """Find out why another rank does not answer."""
        try:
            before, deadline = self._beats(), time.monotonic() + GRACE
            while not self.gone and time.monotonic() < deadline:
                if codes := [end.code for end in self._ends().values() if end.code]:
                    return End(codes[0], "")
                self._count_children()
                time.sleep(BEAT / 5)
            if not self.gone:
                after = self._beats()
                silent = {rank for rank, beat in before.items() if after.get(rank) == beat}
                self.gone = silent - self._ends().keys()
        except RuntimeError:
            return End(code, f"rank 0 is gone: it was killed, or cannot be reached. {GO_ON}")
        who = ", ".join(map(str, sorted(self.gone))) or "(which is not known)"
        return End(code, f"rank {who} is gone: it was killed, or cannot be reached. {GO_ON}")

    def _tell(self, code: int, text: str) -> None:
        with contextlib.suppress(RuntimeError):
            self._board.set(f"end/{self.rank}", json.dumps([code, text]))
            if code:
                self._board.set("trouble", "")

    def _ends(self) -> dict[int, End]:
        """Of the other ranks, where they have shown it."""
        shown = self._shown("end")
        return {rank: End(*json.loads(text)) for rank, text in shown.items()}

    def _beats(self) -> dict[int, int]:
        return {rank: int(text) for rank, text in self._shown("beat").items()}

    def _shown(self, what: str) -> dict[int, str]:
        keys = {rank: f"{what}/{rank}" for rank in range(self.size) if rank != self.rank}
        there = [rank for rank, key in keys.items() if self._board.check([key])]
        return {rank: self._board.get(keys[rank]).decode() for rank in there}

    def _count_children(self) -> None:
        ends = self._ends()
        ranks = enumerate(self.children, 1)
        self.gone |= {rank for rank, child in ranks if child.poll() and rank not in ends}

    def _said(self, text: str) -> bool:
        """Whether the first rank says the same; where it lives, it is given the time to."""
        if self.rank == 0 or not text:
            return False
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(RuntimeError):
            while 0 not in self.gone and time.monotonic() < deadline:
                if first := self._ends().get(0):
                    return first.text == text
                time.sleep(BEAT / 10)
        return False

    def _see_off(self) -> None:
        """The first rank ends last: the others read its board."""
        if self.rank:
            with contextlib.suppress(RuntimeError):
                self._board.set(f"left/{self.rank}", "")
            return
        deadline = time.monotonic() + 2 * GRACE
        with contextlib.suppress(RuntimeError):
            others = {*range(1, self.size)} - self.gone
            while others - self._shown("left").keys() and time.monotonic() < deadline:
                time.sleep(BEAT / 20)
        for child in self.children:
            try:
                child.wait(GRACE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    @property
    def _board(self) -> "TCPStore":
        assert self.board is not None
        return self.board


def unreachable(error: BaseException) -> bool:
    """Whether an error says that another rank did not answer."""
    from torch.distributed import DistError

    text = str(error)
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in text or "Connection" in text)
    )
