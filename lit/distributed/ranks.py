"""The processes of a run, its ranks: how they come together."""

import os
import subprocess
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_only

from lit.run.console import print_error
from lit.run.lightning_internals import start_ranks, started_rank, starts_commands
from lora.config import ConfigError

if TYPE_CHECKING:  # these cost seconds to import, and a run of one process needs no store
    import lightning as L

    from lit.distributed.rank_watchdog import RankWatchdog


class Ranks:
    """The ranks of a run as one of them sees them.

    Each shows on a board that it lives, and how it ends, so that the others end too and an error
    that all have is printed once.
    """

    def __init__(self) -> None:
        self.rank = started_rank()
        # Lightning's own was set when it was imported, which may have been in another process.
        rank_zero_only.rank = self.rank  # type: ignore[attr-defined]
        self.size = 1
        self.ending: RankWatchdog | None = None

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
            self._open(size, [])

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
        if not starts_commands(trainer):
            name = type(trainer.strategy).__name__
            raise ConfigError(f"trainer.strategy {name} starts no commands: take ddp")
        if self.size == 1 and trainer.num_nodes > 1:
            raise ConfigError(
                f"trainer.num_nodes is {trainer.num_nodes}: start the command on each machine by "
                "torchrun or srun (docs/scale.md)"
            )
        try:
            children = start_ranks(trainer)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if self.size == 1:
            self._open(trainer.world_size, children)
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
        """Say why this process ends; beside other ranks as ``Ending.end``."""
        if self.ending:
            return self.ending.end(code, text, lost)
        print_error(self.rank, code, text)
        return code

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

    def _open(self, size: int, children: list[subprocess.Popen]) -> None:
        from lit.distributed.rank_store import RankStore
        from lit.distributed.rank_watchdog import RankWatchdog

        self.size = size
        self.ending = RankWatchdog(RankStore(self.rank, size), children)


def unreachable(error: BaseException) -> bool:
    """Whether an error says that another rank did not answer."""
    from torch.distributed import DistError

    text = str(error)
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in text or "Connection" in text)
    )
