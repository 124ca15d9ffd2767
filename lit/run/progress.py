"""Progress bars that fit one line of any width, in any encoding."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from lit.messages import tr
from lit.run.console import print_rank0

LEAST_BAR = 5
"""Columns of a terminal that a bar takes at least."""


def make_progress() -> Progress:
    """Return progress bars for stdout, each with a text ``values`` at its right.

    Draw them with ``refresh``. They disappear at the end.
    """

    def cut() -> Column:
        # No encoding of a console but UTF-8 has the ellipsis that marks a cut text otherwise.
        return Column(no_wrap=True, overflow="crop")

    done = "{task.description} {task.completed}/{task.total}"
    return Progress(
        TextColumn(done, markup=False, table_column=cut()),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[values]}", markup=False, table_column=cut()),
        console=Console(file=sys.stdout),
        transient=True,
        # Drawn when a step ends: a thread that draws would survive a fork of the loader.
        auto_refresh=False,
        expand=True,
    )


def fitting(values: Sequence[str], width: int) -> str:
    """Return the last values that fit side by side into a width; the first are left out first."""
    for first in range(len(values)):
        if len(text := "  ".join(values[first:])) <= width:
            return text
    return ""


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
