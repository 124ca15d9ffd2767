"""The rows that a comparison measures, and what of it is not as in the run."""

import math
from pathlib import Path

from data.templates.variables import Value, shown
from data.types import DataError
from lit.comparison.run_settings import LoadSettings
from lit.messages import tr, tr_later, tr_mark
from lit.run.folder import RunFolder
from lit.run.metrics_file import read_losses

Variables = dict[str, Value]


def find_rows(
    run: RunFolder, data: Path | None, needed: bool, settings: LoadSettings | None
) -> tuple[Path | None, str]:
    """Return the file of rows to measure, and a sentence about it for the report.

    Args:
        run: The run of the adapter.
        data: Rows that a person gave.
        needed: Whether there must be rows.
        settings: The run's, if they are known.

    Raises:
        DataError: There is none, and one is needed.
    """
    if data is not None:
        return data, tr_later(
            "Rows of {data}; this report cannot know if the adapter was trained on them.", data=data
        )
    if run.validation.is_file():
        if settings is not None and settings.keeps_duplicates:
            return run.validation, tr_later(
                "The run validated on these rows, and may have trained on some of them: its "
                "data.on_duplicate is keep."
            )
        return run.validation, tr_later(
            "The rows were held out by the run: it never trained on them."
        )
    if needed:
        raise DataError(
            tr(
                "{validation} does not exist, so there are no held-out rows: add --data FILE or "
                "--questions FILE",
                validation=run.validation,
            )
        )
    return None, tr_later("Only questions were given.")


def changed_inputs(
    own_base: object, base: str | None, template: str, own: Variables, values: Variables
) -> list[str]:
    """Return a sentence for the base, the template and its variables where they are not the run's.

    Args:
        own_base, own: The run's base, and the values of its template's variables.
        base, template, values: Those of the comparison; ``base`` is None for the run's.
    """
    notes = []
    if base is not None and base != own_base:
        text = tr_mark("The run trained on {run}; this comparison uses {used}.")
        notes.append(tr_later(text, run=own_base, used=base))
    if template != "auto":
        text = tr_mark("The run trained with its own template; this comparison uses {used}.")
        notes.append(tr_later(text, used=template))
    if template != "none" and own != values:
        text = tr_mark("The run trained with template_kwargs {run}; this comparison uses {used}.")
        notes.append(tr_later(text, run=shown(own), used=shown(values)))
    return notes


def measured_by(run: RunFolder) -> list[str]:
    """Return what the run itself measured on its held-out rows, as a sentence."""
    if not run.metrics.is_file():
        return []
    _, losses = read_losses(run.metrics)
    base = [loss for step, loss in losses if step == 0]
    tuned = [loss for step, loss in losses if step > 0 and math.isfinite(loss)]
    if not base or not tuned:
        return []
    return [
        tr_later(
            "The run measured {base:.4f} before training and {tuned:.4f} at its best on these "
            "rows.",
            base=base[0],
            tuned=min(tuned),
        )
    ]
