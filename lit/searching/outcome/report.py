"""The report of a search: report.html, report.md, report.json and trials.csv."""

import csv
import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.text import replace_surrogates
from lit.messages import tr
from lit.report.page import write_page
from lit.searching.outcome.decision import Decision
from lit.searching.outcome.facts import report_loss
from lit.searching.outcome.pictures import draw_pictures
from lit.searching.outcome.sections import sections
from lit.searching.outcome.texts import settings_text
from lit.searching.records import Search
from lora.storage.files import write_text

TRIAL_FIELDS = (
    *("number", "state", "reason", "seed", "full_schedule", "steps", "parameters", "seconds"),
    *("best_step", "best_epoch", "choose_loss", "report_loss"),
)


def write_report(search: Search, decision: Decision, folder: Path) -> list[str]:
    """Write report.html, report.md, report.json, trials.csv and the pictures.

    Args:
        search: All that was measured.
        decision: That of the search.
        folder: An existing folder; files of these names are replaced.

    Returns:
        The names of the files.
    """
    pictures = draw_pictures(search, decision, folder)
    found = sections(search, decision, pictures)
    pages = ["report.html", "report.md"]
    for name in pages:
        write_page(folder / name, tr("Search of settings"), found, folder)
    record = {"decision": decision_json(search, decision), "search": asdict(search)}
    text = json.dumps(_finite(record), ensure_ascii=False, indent=1, allow_nan=False)
    write_text(folder / "report.json", replace_surrogates(text) + "\n")
    write_text(folder / "trials.csv", replace_surrogates(trials_csv(search)))
    return [*pages, "report.json", "trials.csv", *pictures]


def summary_lines(search: Search, decision: Decision) -> list[str]:
    """Return the decision for the terminal, a sentence a line."""
    taken = search.trial(decision.winner) if decision.winner is not None else None
    lines = [decision.sentence]
    if taken:
        lines.append(tr("Taken: {settings}.", settings=settings_text(taken.settings)))
    return [*lines, *decision.details, *search.notes]


def decision_json(search: Search, decision: Decision) -> dict[str, Any]:
    """Return the decision with its numbers, as plain values by name."""
    names = ("kind", "sentence", "details", "tone", "winner")
    record: dict[str, Any] = {name: getattr(decision, name) for name in names}
    facts = decision.facts
    if facts is None:
        return record
    for name in ("gain_choose", "gain_report", "flattery", "over_base"):
        found = getattr(facts, name)
        record[name] = found._asdict() if found else None
    record["seed_spread"] = facts.seed_spread
    record["preferred"] = facts.preferred.kept.number
    record["compared"] = [
        {
            "trials": [run.number for run in one.runs],
            "settings": one.settings,
            "choose_loss": one.loss,
            "to_best": one.to_best._asdict(),
            "tied": one.tied,
            "tied_by_rows": one.tied_by_rows,
            "report_loss": report_loss(search, one),
        }
        for one in facts.compared
    ]
    return record


def trials_csv(search: Search) -> str:
    """Return a table of all trials, with one column for each setting."""
    settings = list(dict.fromkeys(name for trial in search.trials for name in trial.settings))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*TRIAL_FIELDS, *settings])
    for trial in search.trials:
        best = min(trial.curve, key=lambda point: point.loss, default=None)
        means = (
            "" if sums is None else sum(sums) / sum(labels)
            for sums, labels in (
                (trial.choose, search.choose_labels),
                (trial.report, search.report_labels),
            )
        )
        table.writerow(
            [
                *(getattr(trial, name) for name in TRIAL_FIELDS[:8]),
                *((best.step, best.epoch) if best else ("", "")),
                *means,
                *(_cell(trial.settings.get(name, "")) for name in settings),
            ]
        )
    return text.getvalue()


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _finite(value: Any) -> Any:
    """Return the value with null for each number that is not finite: JSON has no word for it."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
