"""A finding: one problem of a run, found before training."""

from typing import NamedTuple


class Finding(NamedTuple):
    """A problem of a run, described for its user."""

    text: str
    """What was set, what there is, and what to change."""
    fatal: bool = False
    """Whether the run cannot work."""
