"""The sections of a checkup about the data: rows, lengths, an example, special tokens."""

from collections.abc import Iterator
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from data.report.row_issue import BAD, CUT, TOO_LONG
from data.report.row_report import RowReport
from data.templates.variables import read_values, shown
from data.types import IGNORE
from lit.messages import tr, tr_mark
from lit.preflight.checkup import Checkup
from lit.report.page import Section

PICTURE = "lengths.png"
BARS, BAR_WIDTH = 12, 40
KINDS = {BAD: tr_mark("bad"), TOO_LONG: tr_mark("too long"), CUT: tr_mark("cut")}
UNITS = tr_mark("rows"), tr_mark("examples")
"""What a report counts."""
LISTED_LINES = 10
"""Line numbers that are listed for each reason."""


def rows_section(checkup: Checkup) -> Section:
    """Show how many rows were read, used, cut and left out, for each source."""
    data = checkup.arguments.datamodule
    rows = []
    for source, report in _sources(checkup):
        counts = [report.count(kind) for kind in (CUT, TOO_LONG, BAD)]
        used = str(report.used)
        if report.unit == "examples":
            used = tr("{rows} as {examples} examples", rows=used, examples=report.examples)
        rows.append([source, str(report.read), used, *map(str, counts)])
    duplicates = str(data.overlap)
    text = " ".join(
        [
            tr(
                "{train} {unit} train, {val} {val_unit} validate.",
                train=len(data.train_rows),
                unit=tr(data.store.report.unit),
                val=len(data.val_rows),
                val_unit=tr(data.val.report.unit),
            ),
            tr("Duplicates: {duplicates}.", duplicates=duplicates)
            if duplicates
            else tr("There are no duplicate rows."),
            *([tr("Of the rows, {share}.", share=data.share_note)] if data.share_note else []),
        ]
    )
    said = [line for _, report in _sources(checkup) for line in report.lines()]
    text = "\n".join([text, *said])
    headers = [
        tr("source"),
        tr("read"),
        tr("used"),
        tr("used, but cut"),
        tr("left out: too long"),
        tr("left out: bad"),
    ]
    return Section(tr("Rows"), text, headers, rows)


def left_out_section(checkup: Checkup) -> Section:
    """Show why rows were cut or left out, with their line numbers."""
    rows = [row for _, report in _sources(checkup) for row in _reasons(report)]
    text = "" if rows else tr("No row was cut or left out.")
    return Section(
        tr("Rows cut or left out"),
        text,
        [tr("what"), tr("rows"), tr("reason"), tr("file:lines")],
        rows,
    )


def _sources(checkup: Checkup) -> list[tuple[str, RowReport]]:
    data = checkup.arguments.datamodule
    train = (data.source.name, data.store.report)
    return [train, (data.val_source.name, data.val.report)] if data.val_source else [train]


def _reasons(report: RowReport) -> Iterator[list[str]]:
    for kind in (BAD, TOO_LONG, CUT):
        titles = report.titles(kind)
        for group, count in report.counts.get(kind, {}).items():
            issues = (issue for issue in report.issues(kind) if issue.group == group)
            first = list(islice(issues, LISTED_LINES))
            locations = [
                f"{file}:{', '.join(str(issue.line) for issue in rows)}"
                for file, rows in groupby(first, key=lambda issue: Path(issue.file).name)
            ]
            more = (
                [tr("… and {count} more", count=count - len(first))] if count > len(first) else []
            )
            yield [tr(KINDS[kind]), str(count), titles[group], "\n".join(locations + more)]


def length_picture_section(checkup: Checkup) -> Section:
    """Show the rows' lengths as a picture, which ``sections`` draws."""
    return Section(tr("Lengths"), _length_text(checkup), pictures=[PICTURE])


def length_table_section(checkup: Checkup) -> Section:
    """Show the rows' lengths as a table with bars."""
    counts, edges = np.histogram(checkup.lengths, min(BARS, len(np.unique(checkup.lengths))))
    rows = [
        [f"{low:.0f} – {high:.0f}", str(count), "█" * round(BAR_WIDTH * count / max(counts))]
        for count, low, high in zip(counts, edges, edges[1:], strict=False)
    ]
    return Section(tr("Lengths"), _length_text(checkup), [tr("tokens"), tr("rows"), ""], rows)


def _length_text(checkup: Checkup) -> str:
    lengths, plan = checkup.lengths, checkup.forecast
    median, percentile_95 = np.quantile(lengths, [0.5, 0.95])
    return tr(
        "A row has {shortest} to {longest} tokens; the median is {median:.0f}, the 95th "
        "percentile {percentile_95:.0f}. {labels:,} of {tokens:,} tokens ({share:.0%}) "
        "have labels and train the model: the answers and their end tokens.",
        shortest=int(lengths.min()),
        longest=int(lengths.max()),
        median=median,
        percentile_95=percentile_95,
        labels=plan.labels,
        tokens=plan.row_tokens,
        share=plan.labels / plan.row_tokens,
    )


def example_section(checkup: Checkup) -> Section:
    """Show the first training row, with its labeled tokens marked."""
    data = checkup.arguments.datamodule
    row = data.train_rows[0]
    example = data.store.example(row)
    tokens = zip(example.ids, example.labels, strict=True)
    spans = [
        (str(data.tokenizer.decode([token for token, _ in group])), labeled)
        for labeled, group in groupby(tokens, key=lambda pair: pair[1] != IGNORE)
    ]
    text = tr(
        "The first training row, {location}, as the model sees it. The model learns to "
        "write the green text; it only reads the gray text.",
        location=data.store.location(row),
    )
    return Section(tr("Example"), text, spans=spans)


def special_tokens_section(checkup: Checkup) -> Section:
    """Show the tokenizer's special tokens and the one that ends an answer."""
    data = checkup.arguments.datamodule
    special = data.tokenizer.special_tokens_map
    rows = [
        [name, str(token), str(data.tokenizer.convert_tokens_to_ids(token))]
        for name, token in special.items()
        if isinstance(token, str)
    ]
    end = data.store.example(data.train_rows[0]).ids[-1]
    rows.append([tr("end of an answer"), str(data.tokenizer.convert_ids_to_tokens(end)), str(end)])
    values = read_values(data.tokenizer)
    text = (
        tr("Template: {template} with {values}.", template=data.template, values=shown(values))
        if values
        else tr("Template: {template}.", template=data.template)
    )
    return Section(tr("Special tokens"), text, [tr("name"), tr("token"), tr("id")], rows)
