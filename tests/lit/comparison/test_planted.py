"""What an adapter learned is known, and the verdict says so: cases of benchmarks/planted.py."""

from pathlib import Path

import pytest

from benchmarks.planted import CASES, report_of
from benchmarks.planted_world import World, make_base

WORLD = World.made(0, things=48, known=0)
"""The base ties no color to a thing: what takes its making longest is left out."""


@pytest.fixture(scope="module")
def base(brief: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows how answers are said."""
    folder = tmp_path_factory.mktemp("base")
    make_base(WORLD, 0, folder, steps=60)
    return folder


@pytest.mark.parametrize("name", [x for x in CASES if "other questions" not in x])
def test_the_verdict_says_what_was_planted(name: str, base: Path, tmp_path: Path) -> None:
    case = CASES[name]
    if case.kinds == ("truth",):
        # The base that this test makes knows less, and memorizing takes twice as long on it.
        settings = ["80" if setting == "40" else setting for setting in case.settings]
        case = case._replace(settings=tuple(settings))
    report = report_of(case, WORLD, 0, base, tmp_path / "case")
    assert report["verdict"]["kind"] in case.kinds, report["verdict"]
    # The rows may be those trained on, and the report does not say otherwise.
    assert "never trained" not in report["data_source"]
    assert "may have trained on some of them" in report["data_source"]
