"""Run lit.fit or lit.search in processes that a test can kill; see ``tests/warm.py``."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lightning.fabric.plugins.environments.lightning import find_free_network_port


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    error: str


class Fault(NamedTuple):
    """What happens after a call of a function; see ``warm.inject_fault``."""

    function: str
    call: int
    effect: str = "SIGKILL"
    times: int = 1


def torchrun(rank: int, size: int) -> dict[str, str]:
    """Return the environment variables that torchrun sets, without those of its own store."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
    shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "TORCHELASTIC_RUN_ID": "test"}
    return {name: str(value) for name, value in (own | shared).items()}


def slurm(rank: int, size: int) -> dict[str, str]:
    """Return the environment variables that srun sets, for tasks on one node."""
    own = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0}
    shared = {"SLURM_NTASKS": size, "SLURM_NTASKS_PER_NODE": size, "SLURM_NNODES": 1}
    job = {"SLURM_JOB_ID": 4711, "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost"}
    return {name: str(value) for name, value in (own | shared | job).items()}


class Command:
    """Runs a command in processes that are forked from one that has imported it.

    Args:
        folder: For the output of the processes and the cache of datasets.
        name: The command: fit or search.
    """

    def __init__(self, folder: Path, name: str = "fit") -> None:
        self.folder = folder
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py")), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert self.server.stdout is not None
        while self.server.stdout.readline() != "ready\n":
            assert self.server.poll() is None

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.terminate()
        self.server.wait()

    def start(
        self,
        args: list[str],
        *,
        fault: Fault | None = None,
        plain_user: bool = False,
        tmpdir: str = "",
        env: dict[str, str] | None = None,
        name: str = "",
        **limits: int,
    ) -> int:
        """Start the command.

        Args:
            args: The command line.
            fault: What goes wrong.
            plain_user: Whether permissions of files count, also for root.
            tmpdir: $TMPDIR; by default the folder.
            env: More environment variables.
            name: Added to the names of the output files; needed if several run at once.
            limits: Resource limits, by their names in ``resource``.

        Returns:
            The process id.
        """
        for stream in ("stdout", "stderr"):
            (self.folder / f"{stream}{name}").unlink(missing_ok=True)
        request = {
            "args": args,
            "cache": str(self.folder / "cache"),
            "tmpdir": tmpdir or str(self.folder),
            "plain_user": plain_user and os.getuid() == 0,
            "limits": limits,
            "fault": fault._asdict() if fault else None,
            "env": env or {},
            "stdout": str(self.folder / f"stdout{name}"),
            "stderr": str(self.folder / f"stderr{name}"),
        }
        return self._ask(request)

    def wait(self, pid: int, name: str = "", limit: float = 120) -> Result:
        """Wait until it ends; kill it after ``limit`` seconds."""
        code = self._ask({"wait": pid, "limit": limit})
        texts = [(self.folder / f"{stream}{name}").read_text() for stream in ("stdout", "stderr")]
        return Result(code, *texts)

    def run(self, args: list[str], **options: object) -> Result:
        """Start it and wait until it ends."""
        return self.wait(self.start(args, **options))  # type: ignore[arg-type]

    def start_ranks(
        self,
        args: list[str],
        size: int,
        environment: Callable[[int, int], dict[str, str]] = torchrun,
        faults: dict[int, Fault] | None = None,
        more: dict[int, list[str]] | None = None,
    ) -> list[int]:
        """Start it as several ranks.

        Args:
            args: The command line of all ranks.
            size: Number of ranks.
            environment: Returns a rank's environment variables: ``torchrun`` or ``slurm``.
            faults: What goes wrong, by rank.
            more: More arguments, by rank.

        Returns:
            The process ids.
        """
        port, started = str(find_free_network_port()), []
        for rank in range(size):
            env = environment(rank, size) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            fault = (faults or {}).get(rank)
            own = [*args, *(more or {}).get(rank, [])]
            started.append(self.start(own, env=env, fault=fault, name=f"-{rank}"))
        return started

    def wait_all(self, started: list[int], limit: float = 120) -> list[Result]:
        """Wait until all ranks end."""
        return [self.wait(pid, f"-{rank}", limit) for rank, pid in enumerate(started)]

    def wait_for_output(self, pid: int, text: str, name: str = "") -> None:
        """Wait until it has printed a text."""
        out = self.folder / f"stdout{name}"
        deadline = time.monotonic() + 60
        while not (out.exists() and text in out.read_text()):
            assert time.monotonic() < deadline, out.read_text()
            time.sleep(0.005)

    def _ask(self, request: dict) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())
