"""Whole commands in Russian: by --lang, by the locale, and not otherwise."""

import html
import importlib
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lit.chat import main as chat
from lit.check import main as check
from lit.compare import main as compare
from lit.fit import main as fit
from lit.settings import language

RUSSIAN = ("--lang", "ru")
VARIABLES = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)
NAMES = re.compile(
    r"`[^`]*`|https?://\S+|--[\w.]+|[\w.-]*[/\\_=][\w./\\=-]*|<\|\w+\|>|[\w.-]+\.gguf"
)
WORDS = re.compile(r"[A-Za-z]{2,}(?:['’-][A-Za-z]+)* [A-Za-z]{2,}")
COMMANDS = [
    *("chat", "check", "compare", "doctor", "embedded", "export", "fit", "merge", "quickstart"),
    *("search", "serve"),
]


@contextmanager
def speaking(**variables: str) -> Iterator[None]:
    """Set the variables of the language, and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def english(text: str) -> list[str]:
    """Return the sentences of a text that are in English: two words, and no Cyrillic letter."""
    sentences = re.split(r"\n|(?<=[.:;!?]) ", NAMES.sub("", text))
    return [x for x in sentences if WORDS.search(x) and not CYRILLIC.search(x)]


def texts_of(page: str) -> list[str]:
    """Return the texts of an HTML page without its styles."""
    body = re.sub(r"<(style|pre)>.*?</\1>", "", page, flags=re.DOTALL)
    return [html.unescape(text).strip() for text in re.split(r"<[^>]*>", body) if text.strip()]


@pytest.fixture(scope="module")
def command(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The settings of a run whose rows are in Russian."""
    folder = tmp_path_factory.mktemp("run")
    rows = [{"prompt": f"Вопрос {i}?", "response": f"Ответ номер {i}."} for i in range(24)]
    rows += [{"prompt": "Пусто", "response": ""}]
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return [
        *("--model.base", str(tiny_folder), "--data.path", str(data), "--model.lr", "1e-2"),
        *("--output_dir", str(folder / "run"), "--trainer.accelerator", "cpu"),
        *("--data.val_fraction", "0.5", "--data.on_bad_row", "skip", "--trainer.max_epochs", "1"),
    ]


@pytest.fixture(scope="module")
def adapter(command: list[str]) -> Path:
    """The adapter of a run in Russian."""
    assert fit([*command, *RUSSIAN]) == 0
    return Path(command[command.index("--output_dir") + 1]) / "adapter"


def test_check_is_in_russian(command: list[str], tmp_path: Path, capsys) -> None:
    assert check([*command, "--output_dir", str(tmp_path / "run"), *RUSSIAN]) == 0
    shown = capsys.readouterr()
    page = (tmp_path / "run" / "check.html").read_text("utf-8")
    assert '<html lang="ru">' in page
    for text in (*texts_of(page), shown.out, shown.err):
        assert not english(text)
    assert "Запуск работать может" in page


def test_fit_is_in_russian(command: list[str], tmp_path: Path, capsys) -> None:
    assert fit([*command, "--output_dir", str(tmp_path / "run"), *RUSSIAN]) == 0
    shown = capsys.readouterr()
    assert not english(shown.out + shown.err)
    card = (tmp_path / "run" / "adapter" / "README.md").read_text("utf-8")
    assert "Trained with lit-lora on" in card
    assert "lang" not in (tmp_path / "run" / "config.yaml").read_text("utf-8")


def test_a_comparison_is_in_russian_and_its_json_and_card_in_english(
    adapter: Path, tmp_path: Path, capsys
) -> None:
    args = ["--adapter", str(adapter), "--max_new_tokens", "4", "--template", "plain"]
    assert compare([*args, "--output_dir", str(tmp_path / "c"), *RUSSIAN]) == 0
    shown = capsys.readouterr()
    page = (tmp_path / "c" / "report.html").read_text("utf-8")
    markdown = (tmp_path / "c" / "report.md").read_text("utf-8")
    for text in (*texts_of(page), markdown, shown.err):
        assert not english(text)
    result = json.loads((tmp_path / "c" / "report.json").read_text("utf-8"))
    own = [result["verdict"]["sentence"], *result["verdict"]["details"], *result["notes"]]
    own += [result["data_source"], result["answered"], *(x["name"] for x in result["measures"])]
    assert not [text for text in own if CYRILLIC.search(text)]
    assert "This report cannot know" not in page
    assert any("The run trained with its own template" in text for text in result["notes"])


def test_a_comparison_of_the_run_writes_its_figures_into_the_card_in_english(
    adapter: Path,
) -> None:
    assert compare(["--adapter", str(adapter), "--max_new_tokens", "4", *RUSSIAN]) == 0
    card = (adapter / "README.md").read_text("utf-8").partition("## Comparison")[2]
    assert "95% interval of the difference" in card
    assert not CYRILLIC.search(card)


def test_chat_is_in_russian(adapter: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    lines = ["/help", "/base", "/seed x", "/nothing", "/seed -1", "/save /", "/reset"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    assert chat(["--adapter", str(adapter), "--max_new_tokens", "4", *RUSSIAN]) == 0
    shown = capsys.readouterr()
    assert not english(shown.out + shown.err)
    assert "история очищена" in shown.out


ERRORS = {
    "a setting": (["--data.pathh", "x"], "нет настройки data.pathh; может быть, это data.path?"),
    "a type": (["--model.lora.r", "many"], "model.lora.r — many; тип должен быть int"),
    "a choice": (["--model.optimizer", "adam"], "model.optimizer — adam; выберите одно из"),
    "lora's own": (["--model.lora.r", "0"], "model.lora.r равно 0; нужно 1 или больше"),
    "a base": (["--model.base", "./none"], "папки ./none нет"),
    "a checkpoint": (["--ckpt_path", "last"], "продолжить нельзя: нет контрольной точки"),
    "a device": (["--trainer.accelerator", "npu"], "trainer.accelerator — npu; выберите одно из"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_of_a_command_is_in_russian(
    case: str, command: list[str], tmp_path: Path, capsys
) -> None:
    wrong, said = ERRORS[case]
    code = fit([*command, "--output_dir", str(tmp_path / "run"), *wrong, *RUSSIAN])
    errors = capsys.readouterr().err
    assert code == 2
    assert f"ошибка: {said}" in errors
    assert not english(errors)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_help_in_russian(name: str, capsys) -> None:
    main = importlib.import_module(f"lit.{name}").main
    with speaking(), pytest.raises(SystemExit) as end:
        main(["--help", *RUSSIAN])
    shown = capsys.readouterr().out
    assert end.value.code in (0, None)
    assert "использование: " in shown
    assert "--lang" in shown
    assert not english(shown)


@pytest.mark.parametrize("name", ["fit", "check"])
def test_every_setting_is_described_in_russian(name: str, capsys) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module(f"lit.{name}").main(["--help_all", *RUSSIAN])
    listed = [x for x in capsys.readouterr().out.splitlines() if x.startswith("  --")]
    assert len(listed) > 80
    assert not [line for line in listed if not CYRILLIC.search(line[44:])]


def test_every_command_takes_the_flag() -> None:
    commands = {path.stem for path in Path("lit").glob("[!_]*.py")} - {"messages"}
    for name in commands:
        main = importlib.import_module(f"lit.{name}").main
        assert hasattr(main, "__wrapped__"), f"decorate lit.{name}.main with in_language"


ASKED: dict[str, tuple[dict[str, str], list[str], bool]] = {
    "nothing": ({}, [], False),
    "LANG": ({"LANG": "ru_RU.UTF-8"}, [], True),
    "LC_ALL": ({"LC_ALL": "ru_RU.UTF-8", "LANG": "en_US.UTF-8"}, [], True),
    "another language": ({"LANG": "de_DE.UTF-8"}, [], False),
    "the flag alone": ({}, ["--lang", "ru"], True),
    "the flag with =": ({}, ["--lang=ru"], True),
    "the flag against the locale": ({"LANG": "ru_RU.UTF-8"}, ["--lang", "en"], False),
    "the last flag": ({}, ["--lang", "en", "--lang", "ru"], True),
}


@pytest.mark.parametrize("case", ASKED)
def test_the_language_is_that_of_the_flag_or_the_locale(case: str, capsys) -> None:
    variables, flags, russian = ASKED[case]
    with speaking(**variables):
        assert chat(flags) == 2
    said = "укажите --adapter D или --base NAME" if russian else "give --adapter D, or --base NAME"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Russian_Russia", "ru"), ("ru_RU", "ru"), ("English_United States", "en"), (None, None)],
)
def test_where_no_variable_names_a_language_the_system_does(
    name: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language.locale, "getlocale", lambda: (name, "cp1251"))
    with speaking():
        assert language._language_of_system() == expected
    with speaking(LANG="fr_FR.UTF-8"):
        assert language._language_of_system() is None


@pytest.mark.parametrize("flags", [["--lang", "xx"], ["--lang=xx"], ["--lang"]])
def test_an_unknown_language_names_those_that_there_are(flags: list[str], capsys) -> None:
    assert chat([*flags]) == 2
    assert "choose en, ru" in capsys.readouterr().err


def test_a_command_leaves_the_language_as_it_was(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for before in (None, "en", "de:en"):
        with speaking(**({"LANGUAGE": before} if before else {})):
            chat([*RUSSIAN])
            assert language.os.environ.get("LANGUAGE") == before
            assert language.gettext.textdomain() == "messages"


def test_the_rule_finds_english(command: list[str], tmp_path: Path) -> None:
    assert check([*command, "--output_dir", str(tmp_path / "run"), "--lang", "en"]) == 0
    page = (tmp_path / "run" / "check.html").read_text("utf-8")
    assert '<html lang="en">' in page
    assert len([text for text in texts_of(page) if english(text)]) > 20
