"""Check that the rows of a source can be used as they are, and say what to type if not."""

from collections import Counter

from data.formats.guess import guess_columns, is_headless
from data.formats.names import MISSING_COLUMN, UNKNOWN_KEYS
from data.messages import tr, tr_mark
from data.report.refusal import RefusedError, as_flag
from data.report.row_issue import BAD, TOO_LONG
from data.report.row_report import RowReport

ALL = {
    BAD: tr_mark("all {count} rows of {source} are bad: {reason}"),
    TOO_LONG: tr_mark(
        "all {count} rows of {source} are too long for `max_length` {max_length}: {reason}"
    ),
}
"""What to say if one reason holds for all rows, by the kind of issue."""
SOME = {
    BAD: tr_mark("{count} of {read} rows of {source} are bad:\n{listing}"),
    TOO_LONG: tr_mark(
        "{count} of {read} rows of {source} are too long for `max_length` {max_length}:\n{listing}"
    ),
}


def check_rows(
    report: RowReport, source: str, on_bad_row: str, truncation: str, max_length: int
) -> None:
    """Check that the rows can be used as they are.

    Args:
        report: What became of them.
        source: The source, as messages name it.
        on_bad_row, truncation, max_length: As in ``data.store.build_store``.

    Raises:
        RefusedError: They cannot; it has every reason, and what to type.
    """
    problems: list[str] = [*report.unreadable]
    flags: dict[str, str] = {}
    if report.encodings:
        names = set(report.encodings.values())
        flags["encoding"] = names.pop() if len(names) == 1 else "auto"
    bad, too_long = report.count(BAD), report.count(TOO_LONG)
    if bad and (on_bad_row == "error" or not report.used):
        problems.append(_describe(report, BAD, source, max_length))
        problems += _columns_advice(report, flags)
        if on_bad_row == "error" and report.used and "columns" not in flags:
            flags["on_bad_row"] = "skip"
    if too_long and (truncation == "error" or not report.used):
        problems.append(_describe(report, TOO_LONG, source, max_length))
        if truncation == "error":
            problems.append(tr("Raise `max_length`, or set `truncation` to middle or drop."))
        else:
            problems.append(tr("Raise `max_length`."))
    if problems:
        raise RefusedError(problems, flags)


def _describe(report: RowReport, kind: str, source: str, max_length: int) -> str:
    count, groups = report.count(kind), report.counts[kind]
    if len(groups) == len(report.files) == 1 < count == report.read:
        (reason,) = report.titles(kind).values()
        return tr(ALL[kind], count=count, source=source, reason=reason, max_length=max_length)
    return tr(
        SOME[kind],
        count=count,
        read=report.read,
        source=source,
        listing=report.listing(kind),
        max_length=max_length,
    )


def _columns_advice(report: RowReport, flags: dict[str, str]) -> list[str]:
    """Propose ``columns`` for files of unknown keys; return what cannot be typed as a flag."""
    # Reasons are in the language of the report: a store of another language is built again.
    if any(tr(MISSING_COLUMN) in group for group in report.counts[BAD]):
        return [tr("Check `columns`: its values must be keys of the rows.")]
    unknown = Counter(x.file for x in report.issues(BAD) if tr(UNKNOWN_KEYS) in x.reason)
    # Few such rows in a file lack a field; many have other names for it.
    files = [file for file, count in unknown.items() if 2 * count > report.files[file]]
    guesses = [guess_columns(report.unknown_keys[file]) for file in files]
    if guesses and guesses[0] and all(guess == guesses[0] for guess in guesses):
        flags["columns"] = as_flag(guesses[0])
    elif guesses:
        return [tr("Set `columns` to your names: '{question: NAME, answer: NAME}'.")]
    return [
        tr(
            "{file} seems to have no header. Add a first line of names such as question and "
            "answer, or name its columns by number.",
            file=file,
        )
        for file in files
        if is_headless(report.unknown_keys[file])
    ]
