"""Blind votes of the page of lit.serve on the page of a comparison."""

import json
from pathlib import Path

import pytest

from data.types import DataError
from lit.comparison import report
from lit.comparison.result import Comparison, LossResult
from lit.comparison.votes import read_votes


def vote(preferred: str | None, *models: str) -> dict:
    """A vote as the page writes it."""
    answers = [{"model": name, "text": "…"} for name in models or ("tuned", "base")]
    return {"question": "Why?", "system": "", "preferred": preferred, "answers": answers}


def save(folder: Path, votes: object, format: str = "lit-lora votes 1") -> Path:
    path = folder / "votes.json"
    path.write_text(json.dumps({"format": format, "date": "2026-01-01", "votes": votes}), "utf-8")
    return path


def test_votes_are_counted_and_shown_with_their_interval(tmp_path: Path) -> None:
    votes = [*[vote("tuned")] * 8, vote("base", "base", "tuned"), vote(None)]
    result = read_votes(save(tmp_path, votes))
    assert (result.tuned, result.base, result.equal) == (8, 1, 1)
    assert result.ci_low == pytest.approx(0.5175, abs=1e-4)  # binom.test(8, 9) of R
    assert result.p_value == pytest.approx(0.03906, abs=1e-5)
    loss = LossResult(1.0, 0.9, -0.2, -0.1, 3, 30, 3)
    shown = Comparison("a", "b", "2026-01-01", 1.0, "", {}, loss, loss, [], [], votes=result)
    report.write(shown, tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "Blind votes" in page
    assert "52% … 100%" in page
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["votes"]["tuned"] == 8
    without = Comparison("a", "b", "2026-01-01", 1.0, "", {}, loss, loss, [], [])
    report.write(without, tmp_path)
    assert "Blind votes" not in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("votes", "said"),
    [
        ([], "nothing"),
        ([vote("a", "a", "b")], "a, b"),
        ([vote("tuned"), vote("x", "base", "x")], "base, tuned, x"),
        ([vote("other")], "not a file of votes"),
        ([vote("tuned", "tuned")], "not a file of votes"),
        ([{"preferred": "tuned"}], "not a file of votes"),
        ("text", "not a file of votes"),
        (None, "not a file of votes"),
    ],
)
def test_a_file_without_votes_on_the_base_and_one_other_model_is_refused(
    votes: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        read_votes(save(tmp_path, votes))


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a file of votes"):
        read_votes(save(tmp_path, [vote("tuned")], "other"))
    with pytest.raises(DataError, match="is not a file"):
        read_votes(tmp_path)
    (tmp_path / "votes.json").write_bytes(b"\xff{")
    with pytest.raises(DataError, match="not a file of votes"):
        read_votes(tmp_path / "votes.json")
