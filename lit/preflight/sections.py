"""A checkup as sections of a page: the same in the terminal and in check.html.

A new section is a function, and its line in SECTIONS.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from lit.distributed.sharding import ShardedStrategy
from lit.preflight.checkup import Checkup
from lit.preflight.coverage import describe_not_adapted
from lit.preflight.data_sections import (
    PICTURE,
    example_section,
    left_out_section,
    length_picture_section,
    length_table_section,
    rows_section,
    special_tokens_section,
)
from lit.preflight.forecast import describe_validation
from lit.report.page import Section, is_our_page, write_page
from lit.report.pictures import lengths_picture
from lit.run.output import existing_folder
from lora.config import ConfigError

PAGE = "check.html"


def write(checkup: Checkup, folder: Path) -> Path:
    """Write check.html into a run's folder and return its path; other files stay untouched.

    Raises:
        ConfigError: A check.html is there that this function did not write.
        OSError: It cannot be written.
    """
    path = folder / PAGE
    check_page(folder)
    with existing_folder(folder), tempfile.TemporaryDirectory() as pictures:
        page = sections(checkup, Path(pictures))
        write_page(path, f"Check of {folder}", page, Path(pictures))
    return path


def check_page(folder: Path) -> None:
    """Check that a folder has no check.html of a person.

    Raises:
        ConfigError: It has one.
    """
    path = folder / PAGE
    if os.path.lexists(path) and not is_our_page(path):
        raise ConfigError(
            f"{path} was not written by lit.check of this version: move it away, or choose "
            "another --output_dir"
        )


def sections(checkup: Checkup, pictures: Path | None) -> list[Section]:
    """Return the page's sections.

    Args:
        checkup: What to show.
        pictures: The folder to draw the picture into; None for a terminal, which gets a table.
    """
    if pictures is not None:
        lengths_picture(checkup.lengths, pictures / PICTURE)
    skipped = length_picture_section if pictures is None else length_table_section
    return [section(checkup) for section in SECTIONS if section is not skipped]


def _verdict(checkup: Checkup) -> Section:
    rows = [["cannot work" if f.fatal else "warning", f.text] for f in checkup.findings]
    section = partial(Section, "Verdict", headers=["", "problem, and what to do"], rows=rows)
    if checkup.fatal:
        return section("This run cannot work with these settings.", tone="bad")
    if rows:
        return section("This run can work; read the warnings first.", tone="warn")
    return section("This run works. No problems were found.")


def _plan(checkup: Checkup) -> Section:
    plan, first, trainer = checkup.forecast, checkup.forecast.first, checkup.arguments.trainer
    sizes, precision = np.diff(first.starts), checkup.arguments.hardware.precision
    rows = [
        ["epochs", str(plan.epochs or f"until step {plan.steps}")],
        ["optimizer steps", f"{plan.steps:,}"],
        ["warm-up steps", f"{plan.warmup:,}"],
        ["optimizer steps in the first epoch", f"{first.steps:,}"],
        ["micro-batches in the first epoch", f"{len(sizes):,}, of {_range(sizes)} rows each"],
        ["validation", describe_validation(checkup.arguments, plan)],
        [
            "tokens per epoch",
            "; ".join(filter(None, [f"{plan.tokens:,}", plan.describe_sharing()])),
        ],
        ["labeled tokens per optimizer step", _range(first.labels)],
        ["devices", f"{trainer.world_size}, {checkup.arguments.hardware.device}"],
        ["precision", f"{precision.value}: {precision.reason}"],
    ]
    if adapter := checkup.arguments.model.adapter:
        rows.insert(0, ["goes on from the adapter", adapter])
    return Section("Plan", "", ["", "value"], rows)


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _memory(checkup: Checkup) -> Section:
    estimate, trainer = checkup.estimate, checkup.arguments.trainer
    count, device = estimate.parameters, trainer.strategy.root_device
    rows = [[name, f"{amount / 1e9:.2f}"] for name, amount in estimate.parts.items()]
    rows.append(["total", f"{sum(estimate.parts.values()) / 1e9:.2f}"])
    if estimate.loading:
        rows.append(["before training, while quantizing", f"{estimate.loading / 1e9:.2f}"])
    text = (
        f"{count.trainable:,} of {count.total:,} parameters train "
        f"({count.trainable / count.total:.2%}). The run needs about "
        f"{estimate.peak / 1e9:.1f} GB of {device.type.upper()} memory at its peak"
        f"{', plus what CUDA itself takes' if device.type == 'cuda' else ''}."
    )
    if left := describe_not_adapted(estimate.not_adapted):
        text += f" {left[0].upper()}{left[1:]}."
    if estimate.host:
        text += f" Loading needs about {estimate.host / 1e9:.1f} GB of this machine's own memory."
    if isinstance(trainer.strategy, ShardedStrategy):
        text += (
            " This estimate is for one process that holds the whole base model. Here each of "
            f"{trainer.world_size} processes holds a shard and what it gathers (docs/scale.md)."
        )
    if not estimate.activations_known:
        text += (
            " Activations are not included: in this model family their size depends on the "
            "values of the weights."
        )
    return Section("Memory", text, ["part", "GB"], rows)


SECTIONS: tuple[Callable[[Checkup], Section], ...] = (
    _verdict,
    rows_section,
    left_out_section,
    length_picture_section,
    length_table_section,
    example_section,
    special_tokens_section,
    _plan,
    _memory,
)
