"""Progress bars that fit one line of any width, in any encoding."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


def make_progress() -> Progress:
    """Return progress bars for stdout, each with a text ``values`` at its right.

    Draw them with ``refresh``. They disappear at the end.
    """
    return Progress(
        TextColumn("{task.description} {task.completed}/{task.total}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[values]}", markup=False),
        console=Console(file=sys.stdout),
        transient=True,
        # Drawn when a step ends: a thread that draws would survive a fork of the loader.
        auto_refresh=False,
        expand=True,
    )
