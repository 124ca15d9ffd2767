"""The commands in the README exist and parse, and its links lead somewhere."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

READMES = [Path("README.md"), Path("README.ru.md")]
COMMAND = re.compile(r"^\s*(?:\.venv/bin/)?(python -m lit\.\w+|make \w+)(.*)$", re.MULTILINE)


def commands(readme: Path) -> list[tuple[str, str]]:
    """The (program, arguments) in a README's code blocks."""
    blocks = re.findall(r"```\w*\n(.*?)```", readme.read_text("utf-8"), re.DOTALL)
    return [
        (program, arguments.partition("#")[0].strip())
        for block in blocks
        for program, arguments in COMMAND.findall(block)
    ]


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_every_command_exists(readme: Path) -> None:
    found = commands(readme)
    assert found
    makefile = Path("Makefile").read_text("utf-8")
    for program, _ in found:
        kind, _, name = program.partition(" ")
        if kind == "make":
            assert re.search(rf"^{name}:", makefile, re.MULTILINE), program
        else:
            assert Path(program.split()[-1].replace(".", "/") + ".py").is_file(), program


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_every_flag_exists(readme: Path) -> None:
    from lit import chat, compare, export, merge
    from lit.settings.arguments import parse

    known = {
        f"python -m lit.{command.__name__.rpartition('.')[2]}": {
            option for action in command._parser()._actions for option in action.option_strings
        }
        for command in (chat, compare, export, merge)
    }
    settings = parse(["--model.base", "m", "--data.path", "p"]).parser.get_defaults().keys()
    for name in ("fit", "check"):
        known[f"python -m lit.{name}"] = {f"--{x}" for x in settings} | {"--config", "--help"}
    for program, arguments in commands(readme):
        for word in shlex.split(arguments):
            if word.startswith("--"):
                assert word.partition("=")[0] in known[program], f"{program} {word}"


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_every_link_leads_to_a_file(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text("utf-8")):
        assert "://" in target or Path(target).exists(), target


def test_the_two_languages_have_the_same_commands_and_headings() -> None:
    english, russian = READMES
    assert commands(english) == commands(russian)
    levels = [
        re.findall(
            r"^(#+) ", re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL), re.M
        )
        for path in READMES
    ]
    assert levels[0] == levels[1]


def test_the_test_command_is_what_continuous_integration_runs() -> None:
    assert ("make test", "") in commands(READMES[0])
    script = Path(".ci/run").read_text("utf-8")
    assert re.search(r"^make test$", script, re.MULTILINE)
    assert subprocess.run(["bash", "-n", ".ci/run"]).returncode == 0
