"""A measure in words: its outcome, and its values as they are shown everywhere."""

from lit.measures.measured import Measured, Outcome
from lit.messages import tr


def reading(measured: Measured) -> str:
    """Return the outcome in words, with how many rows would show what was seen."""
    outcome = measured.outcome
    if outcome is Outcome.TOO_FEW:
        return tr("{rows} rows are too few for an interval", rows=measured.rows)
    if outcome is Outcome.NOT_SHOWN:
        needed = measured.rows_needed
        if measured.tuned == measured.base:
            return tr("not shown: both are equal")
        if needed is None:
            return tr("not shown, and no number of rows in reach would show so small a difference")
        return tr(
            "not shown; about {needed} rows would show a difference of this size", needed=needed
        )
    return tr(outcome)


def short_reading(measured: Measured) -> str:
    """Return the outcome for the cell of a table."""
    needed = measured.rows_needed
    if not needed:
        return tr(measured.outcome)
    return tr("{outcome} (needs about {needed} rows)", outcome=tr(measured.outcome), needed=needed)


def number(measured: Measured, value: float, signed: bool = False) -> str:
    """Return a value of a measure as it is shown everywhere."""
    if measured.share:
        return f"{value:{'+' if signed else ''}.1%}"
    return f"{value:{'+' if signed else ''}.4f}"
