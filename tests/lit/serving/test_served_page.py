"""The page of lit.serve in a real browser, with models that say what the tests want."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import WIDE, chromium, needs_browser, resize
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from serving import Served, make_adapters, read, running

from data.formats.rows import read_row
from data.readers.source import read as read_rows
from lit.serving.engine import worker

pytestmark = needs_browser

ATTACK = (
    "<script>document.title='broken'</script> **bold** <img src=x onerror=document.title='broken'>"
    " [link](javascript:alert(1)) `a < b`\n\n```html\n<script>document.title='broken'</script>\n```"
)
TUNED = (
    "# Стол\n\nДеталь **отклеилась**:\n\n1. стол был *холодным*;\n2. сопло стояло высоко.\n"
    "\n- `M140 S60`\n- " + "очень_длинное_имя_без_пробелов" * 6 + "\n\n> Нагрейте стол."
)
ENDLESS = "x " * 2000
SCRIPTS = Path(__file__).parents[3] / "lit" / "serving"


@pytest.fixture(scope="module")
def served(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose base answers ATTACK and whose tuned model answers TUNED."""
    adapters = make_adapters(tiny_folder, tmp_path_factory.mktemp("adapters"))
    models = read({"tuned": adapters["tuned"]}, tiny_folder)

    def scripted(
        model: object,
        prompts: list[list[int]],
        samplings: object,
        pad: int,
        take: Callable[[int, int], bool],
    ) -> list[int]:
        name = models.adapters.active or "base"
        tokenizer = models.get(name).decoder
        text = {"base": ATTACK, "tuned": TUNED}[name]
        if "endless" in tokenizer.decode(prompts[0]):
            text = ENDLESS
        for token in [*tokenizer(text)["input_ids"], min(models.get(name).stops)]:
            time.sleep(0.001)
            if not take(0, token):
                return []
        raise AssertionError

    patch = pytest.MonkeyPatch()
    patch.setattr(worker, "generate_rows", scripted)
    patch.setattr(worker.Worker, "fits", lambda self, batch, job: False)
    for name in models.names:
        models.get(name).context = None
    with running(models, max_new_tokens=5000) as served:
        yield served
    patch.undo()


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """Headless Chromium."""
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser: webdriver.Chrome, served: Served, tmp_path: Path) -> webdriver.Chrome:
    """The page, fresh, in a window of 1,200 pixels; files are downloaded into tmp_path."""
    behavior = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
    resize(browser, 1200)
    browser.get(f"{served.address}/")
    return browser


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def text(page: webdriver.Chrome, selector: str) -> list[str]:
    """Return the texts of the elements that a selector finds."""
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def ask(page: webdriver.Chrome, question: str, wait: bool = True) -> None:
    """Type a question and Enter; wait for the end of its answers."""
    page.switch_to.active_element.send_keys(question + Keys.ENTER)
    if wait:
        until(lambda: page.find_element(By.ID, "send").is_enabled())


def test_both_models_answer_a_typed_question_in_pieces_side_by_side(
    page: webdriver.Chrome,
) -> None:
    ask(page, "Почему?" + Keys.SHIFT + Keys.ENTER + Keys.NULL + "И что?", wait=False)
    until(lambda: "".join(text(page, ".text")))
    assert page.find_element(By.ID, "stop").is_enabled()
    until(lambda: page.find_element(By.ID, "send").is_enabled())
    assert text(page, ".question") == ["Почему?\nИ что?"]
    assert text(page, ".head span:first-child") == ["base", "tuned"]
    left, right = page.find_elements(By.CSS_SELECTOR, ".answer")
    assert left.rect["y"] == right.rect["y"]
    assert left.rect["x"] < right.rect["x"]
    assert text(page, ".text li")[:2] == ["стол был холодным;", "сопло стояло высоко."]
    assert text(page, ".text h3") == ["Стол"]
    assert text(page, ".text blockquote") == ["Нагрейте стол."]
    assert text(page, "#notice") == [""]


def test_html_of_a_model_is_text_and_nothing_of_it_runs(page: webdriver.Chrome) -> None:
    page.get_log("browser")
    ask(page, "Why?")
    assert page.title == "lit-lora"
    assert text(page, ".text pre") == ["<script>document.title='broken'</script>"]
    (shown,) = text(page, ".answer:first-child .text > p")
    for part in ("<script>", "<img src=x onerror=", "[link](javascript:alert(1))", "a < b"):
        assert part in shown
    assert text(page, ".text strong")[0] == "bold"
    assert page.execute_script("return document.scripts.length") == 1
    assert page.execute_script("return document.querySelectorAll('.answers img, a').length") == 0
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    # Even code of ours could not run a text as HTML: the policy forbids it.
    blocked = "try { document.body.innerHTML = 'x'; return 'ran' } catch (e) { return e.name }"
    assert page.execute_script(blocked) == "TypeError"


@pytest.mark.parametrize("way", ["key", "button"])
def test_an_answer_can_be_stopped_by_key_and_by_button(
    way: str, page: webdriver.Chrome, served: Served
) -> None:
    ask(page, "endless", wait=False)
    until(lambda: "x x" in "".join(text(page, ".text")))
    if way == "key":
        page.switch_to.active_element.send_keys(Keys.ESCAPE)
    else:
        page.find_element(By.ID, "stop").click()
    until(lambda: page.find_element(By.ID, "send").is_enabled())
    assert "stopped" in text(page, ".note")
    until(lambda: not served.server.worker.running and not len(served.server.worker.queue))
    ask(page, "Why?")
    assert len(text(page, ".turn")) == 2


def test_a_blind_vote_hides_the_names_and_is_counted_with_its_interval(
    page: webdriver.Chrome, tmp_path: Path
) -> None:
    page.find_element(By.ID, "blind").click()
    preferred = []
    for number in range(3):
        page.find_element(By.ID, "question").click()
        ask(page, f"Why {number}?")
        turn = page.find_elements(By.CSS_SELECTOR, ".turn")[-1]
        assert [e.text for e in turn.find_elements(By.CSS_SELECTOR, ".head span:first-child")] == [
            "A",
            "B",
        ]
        buttons = turn.find_elements(By.CSS_SELECTOR, ".vote button")
        assert [button.text for button in buttons] == ["A is better", "Equal", "B is better"]
        better = ["Стол" in e.text for e in turn.find_elements(By.CSS_SELECTOR, ".text")].index(
            True
        )
        buttons[1 if number == 2 else 2 * better].click()
        names = [e.text for e in turn.find_elements(By.CSS_SELECTOR, ".head span:first-child")]
        assert sorted(names) == ["base", "tuned"]
        assert names[better] == "tuned"
        preferred.append(None if number == 2 else "tuned")
    until(lambda: "(1 equal)" in text(page, "#tally")[0])
    assert text(page, "#tally")[0].startswith("tuned is better in 2 of 2 decided votes")
    assert "16 % to 100 %" in text(page, "#tally")[0]
    page.find_element(By.ID, "votes").click()
    until(lambda: (tmp_path / "votes.json").is_file())
    file = json.loads((tmp_path / "votes.json").read_text("utf-8"))
    assert [vote["preferred"] for vote in file["votes"]] == preferred
    assert {a["model"]: a["text"] for a in file["votes"][0]["answers"]}["tuned"] == TUNED


def test_a_conversation_is_saved_as_rows_that_training_reads(
    page: webdriver.Chrome, tmp_path: Path
) -> None:
    page.find_element(By.CSS_SELECTOR, "summary").click()
    page.find_element(By.ID, "system").send_keys("Коротко.")
    page.find_element(By.ID, "question").click()
    ask(page, "Почему?")
    ask(page, "И что?")
    page.find_element(By.ID, "save").click()
    until(lambda: len(list(tmp_path.glob("conversation-*.jsonl"))) == 2)
    for name, answer in (("base", ATTACK), ("tuned", TUNED)):
        (row,) = read_rows(tmp_path / f"conversation-{name}.jsonl")
        turns = read_row(row).messages
        roles = ["system", "user", "assistant", "user", "assistant"]
        assert [turn.role for turn in turns] == roles
        assert turns[0].content == "Коротко."
        assert turns[2].content == answer


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window_and_a_phone_stacks_the_answers(
    width: int, page: webdriver.Chrome, tmp_path: Path
) -> None:
    resize(page, width)
    page.find_element(By.CSS_SELECTOR, "summary").click()
    page.find_element(By.ID, "blind").click()
    page.find_element(By.ID, "question").click()
    ask(page, "Почему деталь отклеилась? " * 5)
    assert page.execute_script(WIDE) == []
    left, right = page.find_elements(By.CSS_SELECTOR, ".answer")
    assert (left.rect["y"] < right.rect["y"]) == (width == 400)
    page.save_screenshot(str(tmp_path / f"page-{width}.png"))
    assert (tmp_path / f"page-{width}.png").stat().st_size > 10_000


def test_the_page_speaks_the_language_of_the_browser(page: webdriver.Chrome) -> None:
    agent = page.execute_script("return navigator.userAgent")
    for language, word in (("ru-RU", "Спросить"), ("de-DE", "Ask"), ("en-US", "Ask")):
        override = {"userAgent": agent, "acceptLanguage": language}
        page.execute_cdp_cmd("Emulation.setUserAgentOverride", override)
        page.refresh()
        assert text(page, "#send") == [word]
    script = (SCRIPTS / "page.js").read_text("utf-8")
    english, russian = script.split("  ru: {")
    for name in ("needKey", "tally", "unsaved"):
        assert f" {name}: " in english
        assert f" {name}: " in russian
    assert "http://" not in script
    assert "https://" not in script


def test_the_page_asks_for_the_key_where_the_server_needs_one(
    browser: webdriver.Chrome, served: Served, tiny_folder: Path
) -> None:
    with running(read({}, tiny_folder), api_key="s3cret") as locked:
        browser.get(f"{locked.address}/")
        ask(browser, "Why?")
        assert "API key" in text(browser, "#notice")[0]
        assert browser.find_element(By.ID, "question").get_attribute("value") == "Why?"
        browser.find_element(By.ID, "key").send_keys("s3cret")
        browser.find_element(By.ID, "question").click()
        ask(browser, "")
        assert text(browser, "#notice") == [""]
        assert len(text(browser, ".answer")) == 1
