"""The pages in a real browser, at the width of a phone and of a desktop."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import WIDE, chromium, needs_browser, resize
from selenium import webdriver

from lit.comparison import report
from lit.comparison.result import AnswerPair, Comparison, LossResult
from lit.measures.matching import SIMILAR
from lit.measures.measured import Group, Measured
from lit.report.page import Section, write_page
from lit.report.pictures import answers_picture

pytestmark = needs_browser

LONG = "Подошва отлипает от стола, потому что стол холодный, сопло высоко или плёнка жирная. " * 6
UNBROKEN = "https://example.invalid/" + "очень_длинное_имя_без_пробелов" * 12
ATTACK = "<img src=x onerror=document.title='broken'><script>document.title='broken'</script>"
WIDTHS = {"phone": 360, "desktop": 1280}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with long, unbreakable and hostile answers."""
    folder = tmp_path_factory.mktemp("page")
    texts = [("Почему деталь отклеилась?", LONG, LONG), (ATTACK, UNBROKEN, ATTACK)]
    pairs = [
        AnswerPair(question, base, tuned, 40, 30, False, True, "Стол был холодным.", 3.2, 2.1)
        for question, base, tuned in texts
    ]
    table = [(question, LONG, base, tuned) for question, base, tuned in texts]
    answers_picture(table, folder / "comparison_table.png", "Answers of both models")
    loss = LossResult(4.1, 3.4, -0.9, -0.5, 34, 2700, 33)
    result = Comparison(
        adapter="runs/quickstart/adapter",
        base="models/" + "a-long-name-" * 12,
        date="2026-01-01",
        seconds=61.5,
        data_source="The rows were held out by the run.",
        sampling={"seed": 42, "temperature": 0.0},
        loss=loss,
        forgetting=LossResult(3.0, 3.1, 0.01, 0.2, 24, 2000, 3),
        measures=[
            Measured(Group.MATCHING, SIMILAR, 0.53, 0.71, 0.02, 0.34, 34, "higher", True, 0.25),
            Measured(Group.WRITTEN, "chrF to the reference", 0.2, 0.25, -0.1, 0.2, 34, "higher"),
        ],
        answers=pairs,
        pictures=["comparison_table.png"],
    )
    report.write(result, folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Headless Chromium, without a network."""
    with chromium() as driver:
        yield driver


def show(browser: webdriver.Chrome, page: Path, width: int) -> None:
    """Open the page as a device of this width does."""
    resize(browser, width)
    browser.get(page.as_uri())


@pytest.mark.parametrize("device", WIDTHS)
def test_nothing_is_wider_than_the_window(
    device: str, browser: webdriver.Chrome, page: Path
) -> None:
    show(browser, page, WIDTHS[device])
    assert browser.execute_script(WIDE) == []
    inner = browser.execute_script("return document.documentElement.clientWidth")
    assert WIDTHS[device] - 20 < inner <= WIDTHS[device]  # a scroll bar takes some pixels


@pytest.mark.parametrize("device", WIDTHS)
def test_every_answer_is_readable_with_its_heading(
    device: str, browser: webdriver.Chrome, page: Path
) -> None:
    show(browser, page, WIDTHS[device])
    text = browser.execute_script("return document.body.innerText")
    for wanted in (LONG.strip(), UNBROKEN, ATTACK, "The adapter is better"):
        assert " ".join(wanted.split()) in " ".join(text.split())
    named = browser.execute_script(
        "return [...document.querySelectorAll('td')].filter(e => e.dataset.name === 'tuned')"
        ".map(e => getComputedStyle(e, '::before').content)"
    )
    # On a phone the table head is hidden, and each cell shows its column's name.
    assert {'"tuned"'} == set(named) if device == "phone" else set(named) == {"none"}


def test_the_page_shows_hostile_answers_as_text_and_runs_nothing(
    browser: webdriver.Chrome, page: Path
) -> None:
    show(browser, page, WIDTHS["desktop"])
    assert browser.title == "runs/quickstart/adapter compared with its base"
    assert browser.execute_script("return document.scripts.length") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    widths = browser.execute_script("return [...document.images].map(e => e.naturalWidth)")
    assert len(widths) == 1
    assert widths[0] > 500
    data = json.loads((page.parent / "report.json").read_text("utf-8"))
    assert data["answers"][1]["question"] == ATTACK


@pytest.mark.parametrize("device", WIDTHS)
def test_an_example_in_two_colors_is_complete_and_fits_the_window(
    device: str, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    example = [(f"<|im_start|>user\n{ATTACK} {UNBROKEN}\n", False), (LONG, True)]
    table = Section("Verdict", "No.", ["", "why"], [["warning", UNBROKEN]], tone="warn")
    sections = [table, Section("Example", "", spans=example)]
    write_page(tmp_path / "check.html", "Check of a run", sections, tmp_path)
    show(browser, tmp_path / "check.html", WIDTHS[device])
    assert browser.title == "Check of a run"
    assert browser.execute_script(WIDE) == []
    spans = browser.execute_script(
        "return [...document.querySelectorAll('pre span')]"
        ".map(e => [e.textContent, getComputedStyle(e).color, getComputedStyle(e).opacity])"
    )
    assert [text for text, _, _ in spans] == [text for text, _ in example]
    assert spans[0][1:] != spans[1][1:]
