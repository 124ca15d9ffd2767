"""The commands in the README exist and parse, its links lead to files, and both languages agree."""

import re
import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.ru.md"]
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"^\s*(?:\.venv/bin/)?(python -m lit\.\w+|make \w+)(.*)$", re.MULTILINE)
BLOCK = re.compile(r"```\w*\n(.*?)```", re.DOTALL)


def name(path: Path) -> str:
    return path.name


def commands(readme: Path) -> list[tuple[str, str]]:
    """Return the (program, arguments) in a README's code blocks."""
    return [
        (program, arguments.partition("#")[0].strip())
        for block in BLOCK.findall(readme.read_text("utf-8"))
        for program, arguments in COMMAND.findall(block)
    ]


def prose(readme: Path) -> str:
    """Return a README without its code blocks."""
    return BLOCK.sub("", readme.read_text("utf-8"))


@pytest.mark.parametrize("readme", READMES, ids=name)
def test_every_command_exists(readme: Path) -> None:
    assert commands(readme)
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for program, _ in commands(readme):
        kind, _, target = program.partition(" ")
        if kind == "make":
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), program
        else:
            file = program.split()[-1].replace(".", "/") + ".py"
            assert (ROOT / file).is_file(), program


@pytest.mark.parametrize("readme", READMES, ids=name)
def test_every_flag_exists(readme: Path) -> None:
    from lit import chat, compare, export, merge
    from lit.settings.arguments import parse

    known = {
        f"python -m lit.{command.__name__.rpartition('.')[2]}": {
            option for action in command._parser()._actions for option in action.option_strings
        }
        for command in (chat, compare, export, merge)
    }
    arguments = parse(["--model.base", "m", "--data.path", "p"])
    settings = list(arguments.parser.get_defaults().keys())
    for command in ("fit", "check"):
        known[f"python -m lit.{command}"] = {f"--{x}" for x in settings} | {"--config", "--help"}
    for program, flags in commands(readme):
        for word in shlex.split(flags):
            if word.startswith("--"):
                assert word.partition("=")[0] in known[program], f"{program} {word}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_readme_names_every_command_and_every_page_of_docs() -> None:
    text = READMES[0].read_text("utf-8")
    for path in (ROOT / "lit").glob("[!_]*.py"):
        if path.stem != "messages":
            assert f"| `python -m lit.{path.stem}" in text
    for path in (ROOT / "docs").glob("*.md"):
        assert f"](docs/{path.name})" in text


def test_the_two_languages_have_the_same_commands_headings_tables_and_links() -> None:
    english, russian = READMES
    assert commands(english) == commands(russian)
    for pattern in (r"^(#+) ", r"^\| (`[^`]+`|\[\S+\]\(\S+\)) \|", r"\]\((?!README)([^)]+)\)"):
        first, second = (re.findall(pattern, prose(path), re.MULTILINE) for path in READMES)
        assert first == second
        assert len(first) > 5


def test_the_two_languages_give_the_same_figures() -> None:
    figures = []
    for path in READMES:
        text = re.sub(r"\]\([^)]*\)", "", prose(path))
        text = re.sub(r"(\d\d)\.(\d\d)\.(\d{4})", r"\3-\2-\1", text)
        text = re.sub(r"(?<=\d),(?=\d)", ".", text)
        figures.append(Counter(re.findall(r"\d+(?:\.\d+)?", text)))
    assert figures[0] == figures[1]


def test_the_test_command_is_what_continuous_integration_runs() -> None:
    assert ("make test", "") in commands(READMES[0])
    script = ROOT / ".ci" / "run"
    assert re.search(r"^make test$", script.read_text("utf-8"), re.MULTILINE)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
