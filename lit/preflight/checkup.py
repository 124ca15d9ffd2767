"""What a run would do, as sections of a page.

A new section is a function, and its line in SECTIONS.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from data.row_report import BAD, CUT, TOO_LONG, RowReport
from data.types import IGNORE
from lit.distributed.sharding import ShardedStrategy
from lit.preflight.estimate import Estimate
from lit.preflight.finding import Finding
from lit.preflight.forecast import Forecast
from lit.report.page import Section
from lit.report.pictures import lengths_picture
from lit.settings.arguments import Arguments

PICTURE = "lengths.png"
BARS, WIDTH = 12, 40
LISTED_LINES = 10
"""Rows that are listed of those cut or left out."""


@dataclass(frozen=True)
class Checkup:
    """Everything that was found out before any weight was loaded."""

    arguments: Arguments
    forecast: Forecast
    estimate: Estimate
    reasons: list[Finding]

    @property
    def fatal(self) -> bool:
        """Whether the run cannot work."""
        return any(reason.fatal for reason in self.reasons)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row that trains."""
        data = self.arguments.datamodule
        return data.store.lengths[data.train_rows]


def sections(found: Checkup, pictures: Path | None) -> list[Section]:
    """The page, with its picture drawn into a folder; without one, what a terminal shows."""
    if pictures is not None:
        lengths_picture(found.lengths, pictures / PICTURE)
    left_out = _histogram if pictures is None else _bars
    return [section(found) for section in SECTIONS if section is not left_out]


def _verdict(found: Checkup) -> Section:
    rows = [["cannot work" if r.fatal else "warning", r.text] for r in found.reasons]
    section = partial(Section, "Verdict", headers=["", "why, and what to do"], rows=rows)
    if found.fatal:
        return section("As it is set, this run cannot work.", tone="bad")
    if rows:
        return section("This run works; whether it teaches much is in doubt.", tone="warn")
    return section("This run works, and nothing speaks against it.")


def _rows(found: Checkup) -> Section:
    data = found.arguments.datamodule
    rows = []
    for source, report in _sources(found):
        counts = [report.count(kind) for kind in (CUT, TOO_LONG, BAD)]
        rows.append([source, *map(str, (report.read, report.used, *counts))])
    twice = str(data.overlap)
    text = (
        f"{len(data.train_rows)} rows train, {len(data.val_rows)} validate. "
        f"{f'Duplicates: {twice}.' if twice else 'No row stands twice.'}"
    )
    headers = ["source", "read", "used", "of these cut", "left out as too long", "bad"]
    return Section("Rows", text, headers, rows)


def _left_out(found: Checkup) -> Section:
    rows = [row for _, report in _sources(found) for row in _reasons(report)]
    text = "" if rows else "No row was cut or left out."
    return Section("Cut and left out", text, ["what", "rows", "why", "file and lines"], rows)


def _sources(found: Checkup) -> list[tuple[str, RowReport]]:
    data = found.arguments.datamodule
    train = (data.source.name, data.store.report)
    return [train, (data.val_source.name, data.val.report)] if data.val_source else [train]


def _reasons(report: RowReport) -> Iterator[list[str]]:
    for kind in (BAD, TOO_LONG, CUT):
        for group, count in report.counts.get(kind, {}).items():
            issues = (issue for issue in report.issues(kind) if issue.group == group)
            first = list(islice(issues, LISTED_LINES))
            places = [
                f"{file}:{', '.join(str(issue.line) for issue in rows)}"
                for file, rows in groupby(first, key=lambda issue: Path(issue.file).name)
            ]
            more = [f"… and {count - len(first)} more"] if count > len(first) else []
            yield [kind, str(count), group, "\n".join(places + more)]


def _histogram(found: Checkup) -> Section:
    return Section("Lengths", _length_text(found), pictures=[PICTURE])


def _bars(found: Checkup) -> Section:
    counts, edges = np.histogram(found.lengths, min(BARS, len(np.unique(found.lengths))))
    rows = [
        [f"{low:.0f} – {high:.0f}", str(count), "█" * round(WIDTH * count / max(counts))]
        for count, low, high in zip(counts, edges, edges[1:], strict=False)
    ]
    return Section("Lengths", _length_text(found), ["tokens", "rows", ""], rows)


def _length_text(found: Checkup) -> str:
    lengths, plan = found.lengths, found.forecast
    middle, most = np.quantile(lengths, [0.5, 0.95])
    return (
        f"{int(lengths.min())} to {int(lengths.max())} tokens a row; half have at most "
        f"{middle:.0f}, 95 % at most {most:.0f}. {plan.labels:,} of {plan.tokens:,} tokens are "
        f"learned ({plan.labels / plan.tokens:.0%}): the answers and what ends them."
    )


def _example(found: Checkup) -> Section:
    data = found.arguments.datamodule
    row = data.train_rows[0]
    example = data.store.example(row)
    tokens = zip(example.ids, example.labels, strict=True)
    parts = [
        (str(data.tokenizer.decode([token for token, _ in run])), learned)
        for learned, run in groupby(tokens, key=lambda pair: pair[1] != IGNORE)
    ]
    text = (
        f"The first row that trains, {data.store.location(row)}, as the model sees it: colored is "
        "learned, grey is only read."
    )
    return Section("An example", text, parts=parts)


def _tokens(found: Checkup) -> Section:
    data = found.arguments.datamodule
    special = data.tokenizer.special_tokens_map
    rows = [
        [name, str(token), str(data.tokenizer.convert_tokens_to_ids(token))]
        for name, token in special.items()
        if isinstance(token, str)
    ]
    end = data.store.example(data.train_rows[0]).ids[-1]
    rows.append(["ends an answer", str(data.tokenizer.convert_ids_to_tokens(end)), str(end)])
    text = f"Template: {data.template}."
    return Section("Special tokens", text, ["name", "token", "number"], rows)


def _plan(found: Checkup) -> Section:
    plan, first, trainer = found.forecast, found.forecast.first, found.arguments.trainer
    sizes = np.diff(first.starts)
    rows = [
        ["optimizer steps", f"{plan.steps:,}"],
        ["of these warm-up", f"{plan.warmup:,}"],
        ["optimizer steps of the first epoch", f"{first.steps:,}"],
        ["micro-batches of the first epoch", f"{len(sizes):,}, of {_range(sizes)} rows"],
        ["tokens of an epoch", f"{plan.tokens:,}"],
        ["learned tokens of a step", _range(first.labels)],
        ["epochs", str(plan.epochs or f"until step {plan.steps}")],
        ["devices", f"{trainer.world_size}, {trainer.strategy.root_device.type}"],
    ]
    return Section("Plan", "", ["of", "there are"], rows)


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _memory(found: Checkup) -> Section:
    size, trainer = found.estimate.size, found.arguments.trainer
    device = trainer.strategy.root_device
    rows = [[name, f"{amount / 1e9:.2f}"] for name, amount in found.estimate.parts.items()]
    rows.append(["together", f"{sum(found.estimate.parts.values()) / 1e9:.2f}"])
    if found.estimate.loading:
        loading = f"{found.estimate.loading / 1e9:.2f}"
        rows.append(["before that, while weights are quantized", loading])
    text = (
        f"{size.trainable:,} of {size.total:,} parameters train "
        f"({size.trainable / size.total:.2%}). At its peak the run needs about "
        f"{found.estimate.peak / 1e9:.1f} GB of memory on this {device.type.upper()}"
        f"{', and what CUDA keeps for itself' if device.type == 'cuda' else ''}."
    )
    if isinstance(trainer.strategy, ShardedStrategy):
        text += (
            f" That is of one process with the whole base: here each of {trainer.world_size} holds "
            "its share, and what it gathers (docs/scale.md)."
        )
    if not found.estimate.whole:
        text += " Activations come on top: of this family they cannot be told without its weights."
    return Section("Memory", text, ["part", "GB"], rows)


SECTIONS: tuple[Callable[[Checkup], Section], ...] = (
    _verdict,
    _rows,
    _left_out,
    _histogram,
    _bars,
    _example,
    _tokens,
    _plan,
    _memory,
)
