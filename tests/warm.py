"""Runs python -m lit.fit in processes of their own, without importing everything for each.

Started once, it imports the command and then reads one JSON request a line. A start forks: the
child leads a process group of its own, calls ``lit.fit.main`` as ``python -m lit.fit`` would, and
ends; the answer is its process id. A wait answers with its exit status.
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

MAY_READ_AND_WRITE_ALL = 1 << 1 | 1 << 2 | 1 << 3  # CAP_DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER


def give_up_root() -> None:
    """Make the permissions of files count for root too."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.capget(header, data)
    for place in (0, 1):
        data[place] &= ~MAY_READ_AND_WRITE_ALL
    if libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")


def break_in(place: str, call: int, what: str, times: int) -> None:
    """Let something happen right after the n-th call of a function.

    Args:
        place: The function, as a module names it.
        call: Which call.
        what: The name of a signal that this process gets; ``nan``: what the call returns is no
            number; ``memory``: from the beginning of the call there is hardly any left.
        times: How often the signal comes.
    """
    parts = place.split(".")
    owner = importlib.import_module(".".join(parts[:2]))
    for part in parts[2:-1]:
        owner = getattr(owner, part)
    function, calls = getattr(owner, parts[-1]), itertools.count(1)

    def broken(*args: object, **kwargs: object) -> object:
        if next(calls) != call:
            return function(*args, **kwargs)
        if what == "memory":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, used + 2**20))
        result = function(*args, **kwargs)
        if what.startswith("SIG"):
            for _ in range(times):
                os.kill(os.getpid(), signal.Signals[what])
        return result * float("nan") if what == "nan" else result

    setattr(owner, parts[-1], broken)


def child(request: dict, main: Callable[[list[str]], int]) -> None:
    """Become the command, and end."""
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
            give_up_root()
        if request["fault"]:
            break_in(**request["fault"])
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
    """The exit status of a child, which is killed with its group where it takes too long."""
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
    # First, as in the command: it tells torch what to say.
    importlib.import_module("lit")
    import matplotlib.backends.backend_agg
    import torch
    import transformers

    # What the command imports only once it is needed.
    print(matplotlib.backends, transformers.LlamaForCausalLM)
    from lit.fit import main
    from lit.train.callbacks import SampleAnswers

    # As few as conftest's.
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
