"""The report of a search: whole, escaped, and the same figures in every file."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import WIDE, chromium, needs_browser, resize
from searches import Run, make, realistic
from selenium import webdriver

from lit.searching.outcome import coordinates
from lit.searching.outcome.decision import decide
from lit.searching.outcome.report import summary_lines, trials_csv, write_report
from lit.searching.outcome.texts import difference_text, settings_text, time_text
from lit.searching.records import Point, Search

ATTACK = "<img src=x onerror=document.title='broken'><script>document.title='broken'</script>"
LONG = "CUDA out of memory at step 3: " + "a_name_without_a_space" * 12
PICTURES = {"loss_by_learning_rate.png", "validation_curves.png", "settings.png"}


def hostile() -> Search:
    """Return a search whose texts are long, unbreakable and HTML."""
    search = realistic()
    trials = list(search.trials)
    trials[3] = replace(trials[3], state="failed", reason=ATTACK, choose=None, report=None)
    trials[4] = replace(trials[4], state="failed", reason=LONG, choose=None, report=None)
    modules = {"model.lora.target_modules": [ATTACK, "q_proj" * 30]}
    trials[5] = replace(trials[5], settings=trials[5].settings | modules)
    return replace(search, trials=tuple(trials), notes=(ATTACK,))


SEARCHES = {
    "whole": (realistic, PICTURES),
    "sixty trials": (lambda: realistic(60, 5), PICTURES),
    "hostile": (hostile, PICTURES),
    "one trial": (lambda: make([Run()]), PICTURES - {"settings.png"}),
    "one that failed": (lambda: make([Run(state="failed")]), set()),
    "no trial": (lambda: replace(make([Run()]), trials=()), set()),
    "too few rows": (lambda: make([Run(), Run(lr=1e-3)], (3, 3)), PICTURES - {"settings.png"}),
    "no rows": (lambda: make([Run(state="failed")], (0, 0)), set()),
    "no report": (lambda: make([Run(), Run(0.2, r=4, lr=1e-3, reported=False)]), PICTURES),
    "own failed": (lambda: make([Run(state="failed"), Run(0.2, lr=1e-3)]), None),
    "no learning rate": (
        lambda: replace(make([Run()]), trials=(replace(make([Run()]).trials[0], settings={}),)),
        {"validation_curves.png"},
    ),
    "equal losses": (lambda: make([Run(), Run(r=4, lr=1e-3)], noise=0.0), PICTURES),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_has_a_page_with_its_verdict_and_each_trial(name: str, tmp_path: Path) -> None:
    made, pictures = SEARCHES[name]
    search = made()
    decision = decide(search)
    names = set(write_report(search, decision, tmp_path))
    assert names == {path.name for path in tmp_path.iterdir()}
    if pictures is not None:
        assert {x for x in names if x.endswith(".png")} == pictures
    record = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert record["decision"]["sentence"] == decision.sentence
    assert Search.from_json(record["search"]) == search
    rows = list(csv.DictReader((tmp_path / "trials.csv").open(encoding="utf-8", newline="")))
    assert [int(row["number"]) for row in rows] == [trial.number for trial in search.trials]
    markdown = (tmp_path / "report.md").read_text("utf-8")
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in html
    assert "<img src=x" not in html
    for trial in search.trials:
        assert f"\n| {trial.number} | " in markdown
    for text in ("nan", "inf", "None"):
        assert f" {text}" not in markdown


def test_all_files_have_the_same_figures(tmp_path: Path) -> None:
    search = realistic()
    decision = decide(search)
    write_report(search, decision, tmp_path)
    facts = decision.facts
    assert facts is not None
    record = json.loads((tmp_path / "report.json").read_text("utf-8"))["decision"]
    gain = record["gain_report"]
    text = f"{gain['value']:+.4f} ({gain['low']:+.4f} … {gain['high']:+.4f})"
    assert difference_text(facts.gain_report) == text
    for name in ("report.html", "report.md"):
        assert text in (tmp_path / name).read_text("utf-8").replace("\\", "")
    assert any(text in line for line in summary_lines(search, decision))
    rows = {int(row["number"]): row for row in csv.DictReader(trials_csv(search).splitlines())}
    kept = facts.taken.kept
    assert kept.choose is not None
    assert float(rows[kept.number]["choose_loss"]) == pytest.approx(
        sum(kept.choose) / sum(search.choose_labels)
    )
    assert json.loads(rows[kept.number]["model.lr"]) == kept.settings["model.lr"]


def test_the_page_shows_reasons_of_failures_and_what_is_the_configs_own(tmp_path: Path) -> None:
    search = realistic()
    assert any(trial.state == "failed" for trial in search.trials)
    write_report(search, decide(search), tmp_path)
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "failed: the loss is not finite at step 12" in text
    assert "stopped early: behind" in text
    assert "the config's own, worse" in text
    assert "taken, not told apart" in text


def test_a_loss_that_is_not_finite_is_null_in_the_file_and_no_picture_fails(tmp_path: Path) -> None:
    search = make([Run(), Run(0.1, lr=1e-3)])
    curve = (Point(1, 0.1, math.nan), Point(2, 0.2, 1.5), Point(3, 0.3, math.inf))
    broken = (search.trials[0], replace(search.trials[1], curve=curve, choose=(math.nan,) * 40))
    search = replace(search, trials=broken)
    write_report(search, decide(search), tmp_path)
    record = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert record["search"]["trials"][1]["choose"][0] is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"model.lr": 2e-4, "model.lora.r": 8}, "lr 0.0002, r 8"),
        ({"model.lora.target_modules": ["q_proj", "v_proj"]}, "target_modules q_proj + v_proj"),
        ({}, ""),
    ],
)
def test_settings_are_shown_by_their_last_names(settings: dict, text: str) -> None:
    assert settings_text(settings) == text


def test_times_are_shown_in_one_unit() -> None:
    assert [time_text(x) for x in (12.2, 90, 7200)] == ["12 s", "1.5 min", "2.0 h"]


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with chromium() as driver:
        yield driver


@needs_browser
@pytest.mark.parametrize("width", [360, 400, 1200])
def test_the_page_fits_the_window_and_runs_nothing(
    browser: webdriver.Chrome, width: int, tmp_path: Path
) -> None:
    search = hostile()
    write_report(search, decide(search), tmp_path)
    browser.get((tmp_path / "report.html").as_uri())
    resize(browser, width)
    assert browser.title == "Search of settings"
    assert browser.execute_script(WIDE) == []
    broken = "return [...document.images].filter(x => !x.complete || !x.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    assert not [log for log in browser.get_log("browser") if log["level"] == "SEVERE"]


def test_a_try_and_its_whole_run_are_one_line_and_the_taken_one_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Run(), Run(0.1, lr=5e-4, full=False), Run(0.0, r=4, full=False), Run(0.2, lr=5e-4)]
    search = make(runs)
    # A try ends when its time does; only whole runs have a number of epochs.
    epochs = {True: {"trainer.max_epochs": 2}, False: {}}
    trials = [replace(x, settings=x.settings | epochs[x.full_schedule]) for x in search.trials]
    search, drawn = replace(search, trials=tuple(trials)), []
    monkeypatch.setattr(coordinates, "save_picture", lambda figure, path: drawn.append(figure))
    assert coordinates.coordinates_picture(search, decide(search), tmp_path / "picture.png")
    axes = drawn[0].axes[0]
    lines = [line.get_label() for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(lines) == 3
    assert {"taken", "the config's own settings"} <= set(lines)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["lr", "r", "loss"]
