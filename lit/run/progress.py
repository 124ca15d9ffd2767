"""Progress bars that fit one line of any width, in any encoding."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lit.messages import tr
from lit.run.console import print_rank0


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


StartBar = Callable[[str, int], Callable[[int], None]]
"""Starts a progress bar from its name, a marked text, and total; the result advances it."""


@contextmanager
def stage_bars() -> Iterator[StartBar]:
    """Show progress bars of work under two models on a terminal, and on a pipe a line for each."""
    with make_progress() as progress:

        def start_bar(name: str, total: int) -> Callable[[int], None]:
            if not progress.console.is_terminal:
                print_rank0(
                    tr(
                        "{name}: {total} under each of the two models …",
                        name=tr(name),
                        total=total // 2,
                    ),
                    note=True,
                )
            task = progress.add_task(tr(name), total=total, values="")
            progress.refresh()
            return lambda rows: progress.update(task, advance=rows, refresh=True)

        yield start_bar
