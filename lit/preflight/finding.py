"""What speaks against a run."""

from typing import NamedTuple


class Finding(NamedTuple):
    """Something about a run that its user should know."""

    text: str
    fatal: bool = False
    """Whether the run cannot work."""
