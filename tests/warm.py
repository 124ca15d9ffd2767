"""A server that runs lit.fit or lit.search in forked processes, without importing it for each.

It imports the command that its argument names, then reads one JSON request per line. A start
request forks a child, which leads its own process group and calls ``main`` as ``python -m`` does;
the answer is its process id. The answer to a wait request is the exit status.
"""

import ctypes
import importlib
import itertools
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

LATER = (
    *("datasets.arrow_dataset", "torch.utils.tensorboard", "tensorboard.backend.event_processing"),
    *("data.store", "data.readers.hub", "data.splitting.split", "data.report.row_report"),
    "lit.fitting.training",
)
SEARCH = ("lit.searching.search", "lit.searching.setup", "lit.searching.trials.storage")
"""What the command imports when it runs: a second of each forked process."""
MAY_READ_AND_WRITE_ALL = 1 << 1 | 1 << 2 | 1 << 3  # CAP_DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER


def drop_root_privileges() -> None:
    """Let file permissions apply to root too."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, data)
    for word in (0, 1):
        data[word] &= ~MAY_READ_AND_WRITE_ALL
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def inject_fault(function: str, call: int, effect: str, times: int) -> None:
    """Let a fault happen at the n-th call of a function.

    Args:
        function: Its name, as looked up in a module.
        call: Which call, from 1.
        effect: A signal that this process gets after the call; ``nan``: the call returns NaN;
            ``memory``: almost no memory is left from the start of the call on; ``MemoryError``:
            the call finds none, and later ones do.
        times: How often the signal is sent.
    """
    parts = function.split(".")
    owner = importlib.import_module(".".join(parts[:2]))
    for part in parts[2:-1]:
        owner = getattr(owner, part)
    original, calls = getattr(owner, parts[-1]), itertools.count(1)

    def faulty(*args: object, **kwargs: object) -> object:
        if next(calls) != call:
            return original(*args, **kwargs)
        if effect == "MemoryError":
            raise MemoryError
        if effect == "memory":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, used + 2**20))
        result = original(*args, **kwargs)
        if effect.startswith("SIG"):
            for _ in range(times):
                os.kill(os.getpid(), signal.Signals[effect])
        return result * float("nan") if effect == "nan" else result

    setattr(owner, parts[-1], faulty)


def child(request: dict, main: Callable[[list[str]], int]) -> None:
    """Run the command and end the process."""
    code = 1
    try:
        os.setpgid(0, 0)
        os.environ |= request["env"]
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), number)
        import datasets

        datasets.config.HF_DATASETS_CACHE = request["cache"]
        tempfile.tempdir = request["tmpdir"]
        for name, limit in request["limits"].items():
            resource.setrlimit(getattr(resource, name), (limit, limit))
        if request["plain_user"]:
            drop_root_privileges()
        if request["fault"]:
            inject_fault(**request["fault"])
        code = main(request["args"])
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, limit: float) -> int:
    """Return the exit status of a child; kill its process group after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.01)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # First, as in the command: it sets what torch logs.
    importlib.import_module("lit")
    import matplotlib.backends.backend_agg
    import torch
    import transformers

    # Import what the command imports later.
    print(matplotlib.backends, transformers.LlamaForCausalLM)
    for module in (*LATER, *(SEARCH if sys.argv[1] == "search" else ())):
        importlib.import_module(module)
    main = importlib.import_module(f"lit.{sys.argv[1]}").main
    from lit.train.sample_answers import SampleAnswers

    # As short as in conftest.
    SampleAnswers.__init__.__defaults__ = (3, 4)
    torch.set_num_threads(1)
    print("ready", file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(wait(request["wait"], request["limit"]), file=answers)
        elif pid := os.fork():
            print(pid, file=answers)
        else:
            child(request, main)
