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
from lit.messages import tr
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
        write_page(path, tr("Check of {folder}", folder=folder), page, Path(pictures))
    return path


def check_page(folder: Path) -> None:
    """Check that a folder has no check.html of a person.

    Raises:
        ConfigError: It has one.
    """
    path = folder / PAGE
    if os.path.lexists(path) and not is_our_page(path):
        raise ConfigError(
            tr(
                "{path} was not written by lit.check of this version: move it away, or choose "
                "another --output_dir",
                path=path,
            )
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
    rows = [[tr("cannot work") if f.fatal else tr("warning"), f.text] for f in checkup.findings]
    section = partial(
        Section, tr("Verdict"), headers=["", tr("problem, and what to do")], rows=rows
    )
    if checkup.fatal:
        return section(tr("This run cannot work with these settings."), tone="bad")
    if rows:
        return section(tr("This run can work; read the warnings first."), tone="warn")
    return section(tr("This run works. No problems were found."))


def _plan(checkup: Checkup) -> Section:
    plan, first, trainer = checkup.forecast, checkup.forecast.first, checkup.arguments.trainer
    sizes, precision = np.diff(first.starts), checkup.arguments.hardware.precision
    rows = [
        [tr("epochs"), str(plan.epochs or tr("until step {steps}", steps=plan.steps))],
        [tr("optimizer steps"), f"{plan.steps:,}"],
        [tr("warm-up steps"), f"{plan.warmup:,}"],
        [tr("optimizer steps in the first epoch"), f"{first.steps:,}"],
        [
            tr("micro-batches in the first epoch"),
            tr("{count:,}, of {range} rows each", count=len(sizes), range=_range(sizes)),
        ],
        [tr("validation"), describe_validation(checkup.arguments, plan)],
        [
            tr("tokens per epoch"),
            "; ".join(filter(None, [f"{plan.tokens:,}", plan.describe_sharing()])),
        ],
        [tr("labeled tokens per optimizer step"), _range(first.labels)],
        [tr("devices"), f"{trainer.world_size}, {checkup.arguments.hardware.device}"],
        [tr("precision"), f"{precision.value}: {precision.reason}"],
    ]
    if adapter := checkup.arguments.model.adapter:
        rows.insert(0, [tr("goes on from the adapter"), adapter])
    return Section(tr("Plan"), "", ["", tr("value")], rows)


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else tr("{low:,} to {high:,}", low=low, high=high)


def _memory(checkup: Checkup) -> Section:
    estimate, trainer = checkup.estimate, checkup.arguments.trainer
    count, device = estimate.parameters, trainer.strategy.root_device
    rows = [[name, f"{amount / 1e9:.2f}"] for name, amount in estimate.parts.items()]
    rows.append([tr("total"), f"{sum(estimate.parts.values()) / 1e9:.2f}"])
    if estimate.loading:
        rows.append(
            [
                tr("before training, while loading"),
                f"{estimate.loading / 1e9:.2f}",
            ]
        )
    sentences = [
        tr(
            "{trainable:,} of {total:,} parameters train ({share:.2%}).",
            trainable=count.trainable,
            total=count.total,
            share=count.trainable / count.total,
        )
    ]
    peak, kind = estimate.peak / 1e9, device.type.upper()
    sentences.append(
        tr(
            "The run needs about {peak:.1f} GB of {device} memory at its peak, plus what CUDA "
            "itself takes.",
            peak=peak,
            device=kind,
        )
        if device.type == "cuda"
        else tr(
            "The run needs about {peak:.1f} GB of {device} memory at its peak.",
            peak=peak,
            device=kind,
        )
    )
    if left := describe_not_adapted(estimate.not_adapted):
        sentences.append(f"{left[0].upper()}{left[1:]}.")
    if estimate.host:
        sentences.append(
            tr(
                "Loading needs about {host:.1f} GB of this machine's own memory.",
                host=estimate.host / 1e9,
            )
        )
    if isinstance(trainer.strategy, ShardedStrategy):
        sentences.append(
            tr(
                "This estimate is for one process that holds the whole base model. Here each of "
                "{processes} processes holds a shard and what it gathers (docs/scale.md).",
                processes=trainer.world_size,
            )
        )
    if not estimate.activations_known:
        sentences.append(
            tr(
                "Activations are not included: in this model family their size depends on the "
                "values of the weights."
            )
        )
    return Section(tr("Memory"), " ".join(sentences), [tr("part"), tr("GB")], rows)


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
