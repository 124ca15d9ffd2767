"""Render a stranger's chat template in a child process first, with limits of time and memory.

jinja2's own sandbox stops code, but not loops, powers or texts of gigabytes.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from data.messages import tr
from data.types import DataError

TRIAL_SECONDS, TRIAL_BYTES = 5, 1 << 29
"""Processor time of a trial, and the memory that it may use; it may wait four times as long."""
CONVERSATIONS = [
    [{"role": role, "content": content} for role, content in turns]
    for turns in (
        (("user", "?"), ("assistant", "!")),
        (("system", "Be brief."), *(("user", "Why? " * 200), ("assistant", "So. " * 200)) * 4),
    )
]
RENDER = """
import json, sys
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template
template, tokens, conversations, most = json.loads(sys.stdin.readline())
print("ready", flush=True)
for conversation in conversations:
    try:
        texts, _ = render_jinja_template([conversation], chat_template=template, **tokens)
    except TemplateError:
        continue
    except MemoryError:
        sys.exit(1)
    except Exception:
        break
    if len(texts[0]) > most:
        sys.exit(1)
"""
"""What the child does where a process cannot be forked safely; it imports no torch."""
_checked: set[str] = set()
"""Templates that this process has checked."""


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer's template ends, in bounded time and memory.

    Each new template costs one trial in a child process. On Linux it is forked, which takes 23 ms,
    and the kernel holds the limits. Elsewhere it is started, which takes 0.6 s, and this process
    watches it and kills it. A template may still be slow for some other conversation.

    Raises:
        DataError: It takes more than ``TRIAL_SECONDS`` or ``TRIAL_BYTES``.
    """
    template = repr(tokenizer.chat_template)
    if not tokenizer.chat_template or template in _checked:
        return
    trial = _forked_trial if sys.platform == "linux" else _started_trial
    if not trial(tokenizer):
        raise DataError(
            tr(
                "the template takes more than {seconds} s or {memory} MB for a "
                "short conversation: set `template` to plain or to a Jinja file",
                seconds=TRIAL_SECONDS,
                memory=TRIAL_BYTES >> 20,
            )
        )
    _checked.add(template)


def _started_trial(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether conversations are rendered within the limits, in a new process."""
    try:
        template = tokenizer.get_chat_template()
    except ValueError:
        return True  # whoever renders it next reports it
    request = [template, tokenizer.special_tokens_map, CONVERSATIONS, TRIAL_BYTES >> 5]
    with subprocess.Popen(
        # -P: a file of the folder that the command runs in is not taken for a library.
        [sys.executable, "-P", "-c", RENDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.close()
            if not child.stdout.readline():
                raise RuntimeError(tr("the process that tries the template has failed: see above"))
            return _watch(child)
        finally:
            child.kill()


def _watch(child: subprocess.Popen) -> bool:
    """Return whether a process ends well before it reaches a limit."""
    process = psutil.Process(child.pid)
    deadline = time.monotonic() + 4 * TRIAL_SECONDS
    try:
        memory, used = process.memory_info().rss, sum(process.cpu_times()[:2])
        while child.poll() is None:
            seconds = sum(process.cpu_times()[:2]) - used
            grown = process.memory_info().rss - memory
            late = seconds > TRIAL_SECONDS or time.monotonic() > deadline
            if late or grown > TRIAL_BYTES:
                return False
            time.sleep(0.002)
    except psutil.Error:
        child.wait(4 * TRIAL_SECONDS)  # it has ended meanwhile
    return child.returncode == 0


def _forked_trial(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether conversations are rendered within the limits, in a fork of this process."""
    if sys.platform != "linux":
        raise NotImplementedError("only Linux forks safely")
    child = os.fork()
    if not child:
        code = 1
        try:
            code = _render_with_limits(tokenizer)
        finally:
            os._exit(code)
    deadline = time.monotonic() + 4 * TRIAL_SECONDS
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1]) == 0


def _render_with_limits(tokenizer: PreTrainedTokenizerBase) -> int:
    """Render conversations under the kernel's limits and return the exit code of the process."""
    if sys.platform != "linux":
        raise NotImplementedError("only Linux limits the memory of a process")
    import resource  # Windows has no such module

    def limit(kind: int, value: int) -> None:
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit(resource.RLIMIT_AS, pages * resource.getpagesize() + TRIAL_BYTES)
        limit(resource.RLIMIT_CPU, TRIAL_SECONDS)
        limit(resource.RLIMIT_CORE, 0)
        for turns in CONVERSATIONS:
            with contextlib.suppress(TemplateError):  # whoever renders it next reports it
                text = tokenizer.apply_chat_template(turns, tokenize=False)
                if len(str(text)) > TRIAL_BYTES >> 5:
                    return 1
    except MemoryError:
        return 1
    except Exception:
        return 0
    return 0
