"""The ranks of a run: start and connect its processes, compare what they read, and end together."""

import os
import subprocess
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import rank_zero_only

from lit.messages import tr
from lit.run.console import print_error
from lit.run.lightning_internals import start_ranks, started_rank, starts_commands
from lora.config import ConfigError

if TYPE_CHECKING:  # these cost seconds to import, and a run of one process needs no store
    import lightning as L

    from lit.distributed.rank_watchdog import RankWatchdog


class Ranks:
    """The ranks of a run, as one of them sees them.

    With several ranks each has a watchdog, so that all end when one ends, and an error that all
    have is printed once.
    """

    def __init__(self) -> None:
        self.rank = started_rank()
        # Lightning sets it when it is imported, which may have happened in another process.
        rank_zero_only.rank = self.rank  # type: ignore[attr-defined]
        self.size = 1
        self.watchdog: RankWatchdog | None = None

    def connect(self) -> None:
        """Connect to the other ranks, if this process was started as one of several.

        Raises:
            ConfigError: SLURM was asked for processes in a way that Lightning does not support.
            OSError: Rank 0 cannot be reached.
        """
        # torchrun sets the first, Lightning sets the second for the ranks that it starts.
        started = {"TORCHELASTIC_RUN_ID", "LOCAL_RANK"} & os.environ.keys()
        size = int(os.environ.get("WORLD_SIZE", 1)) if started else 1
        if not started and self._in_slurm():
            size = int(os.environ["SLURM_NTASKS"])
        if size > 1:
            self._start_watchdog(size, [])

    def start_others(self, trainer: "L.Trainer") -> None:
        """Start the other ranks of this machine, unless they were started, and connect to all.

        Raises:
            ConfigError: The settings do not match how the processes were started.
        """
        if trainer.world_size != self.size and self.size > 1:
            raise ConfigError(
                tr(
                    "{size} processes were started, but trainer.devices times trainer.num_nodes "
                    "is {world_size}: make them equal",
                    size=self.size,
                    world_size=trainer.world_size,
                )
            )
        if trainer.world_size == 1:
            return
        if not starts_commands(trainer):
            name = type(trainer.strategy).__name__
            raise ConfigError(
                tr(
                    "trainer.strategy {name} does not start a command for each rank: choose ddp",
                    name=name,
                )
            )
        if self.size == 1 and trainer.num_nodes > 1:
            raise ConfigError(
                tr(
                    "trainer.num_nodes is {num_nodes}: start the command on each machine with "
                    "torchrun or srun (docs/scale.md)",
                    num_nodes=trainer.num_nodes,
                )
            )
        try:
            children = start_ranks(trainer)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if self.size == 1:
            self._start_watchdog(trainer.world_size, children)
        trainer.strategy.setup_environment()

    def check_equal(self, values: dict[str, str]) -> None:
        """Check that all ranks have the same rows, the same checkpoint and the same precision.

        Args:
            values: What this rank has, by a name for the error.

        Raises:
            ConfigError: A value differs between ranks; the message names it.
        """
        if self.size == 1:
            return
        from torch.distributed import all_gather_object

        gathered: list[dict[str, str]] = [{} for _ in range(self.size)]
        all_gather_object(gathered, values)
        for rank, others in enumerate(gathered):
            for name, value in gathered[0].items():
                if others[name] != value:
                    raise ConfigError(
                        tr(
                            "{name} is {others} on rank {rank}, and {value} on rank 0: all "
                            "machines must have the same files and settings",
                            name=name,
                            others=others[name],
                            rank=rank,
                            value=value,
                        )
                    )

    def end(self, code: int, text: str = "", lost: bool = False) -> int:
        """Print why this process ends; with several ranks see ``RankWatchdog.end``.

        Returns:
            The exit code.
        """
        if self.watchdog:
            return self.watchdog.end(code, text, lost)
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

    def _start_watchdog(self, size: int, children: list[subprocess.Popen]) -> None:
        from lit.distributed.rank_store import RankStore
        from lit.distributed.rank_watchdog import RankWatchdog

        self.size = size
        self.watchdog = RankWatchdog(RankStore(self.rank, size), children)


def is_connection_error(error: BaseException) -> bool:
    """Return whether an error means that another rank did not answer."""
    from torch.distributed import DistError

    text = str(error)
    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and ("gloo" in text or "Connection" in text)
    )
