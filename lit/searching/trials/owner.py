"""Which process runs a trial, and whether it is still at work."""

import os
import platform
import time
import uuid
from typing import Any

import psutil
from optuna.trial import FrozenTrial, TrialState

SILENCE = 180.0
"""Seconds after which a process on another machine counts as ended."""


class Owner:
    """This process, as other processes know it.

    Args:
        place: The machine and the folder of its results.
    """

    def __init__(self, place: str) -> None:
        self.identity: dict[str, Any] = {
            "session": uuid.uuid4().hex,
            "host": platform.node(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
            "place": place,
        }

    def lives(self, attempt: FrozenTrial) -> bool:
        """Return whether the process that runs an attempt is at work, as far as can be known."""
        if attempt.state != TrialState.RUNNING:
            return False
        owner, me = attempt.user_attrs["owner"], self.identity
        if owner["session"] == me["session"]:
            return True
        if owner["host"] != me["host"]:
            return time.time() - attempt.user_attrs["beat"] < SILENCE
        # Another search of this very process has ended.
        return owner["pid"] != me["pid"] and _is_running(owner["pid"], owner["started"])


def _is_running(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
