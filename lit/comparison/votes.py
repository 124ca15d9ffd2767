"""Blind votes on the answers of both models, from a file that the page of lit.serve wrote."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from data.types import DataError
from lit.comparison.result import VoteResult
from lit.report.sign_test import sign_test

BASE = "base"
FORMAT = "lit-lora votes 1"
MAX_BYTES = 1 << 26
"""Bytes of a file of votes, which holds the answers too; it is read whole."""


def read_votes(path: Path) -> VoteResult:
    """Read votes on the base and one other model.

    Raises:
        DataError: The file cannot be read, holds no votes, or votes on other models.
    """
    try:
        if not path.is_file():
            raise DataError(f"{path} is not a file: give the votes.json of lit.serve's page")
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES} bytes: it is not a file of votes")
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise ValueError
        votes = [_vote(vote) for vote in content["votes"]]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is not a file of votes that lit.serve's page wrote ({type(error).__name__})"
        ) from None
    names = {name for models, _ in votes for name in models}
    if len(names) != 2 or BASE not in names:
        found = ", ".join(sorted(names)) or "nothing"
        raise DataError(
            f"{path} has votes on {found}; a comparison shows those on {BASE} and one other model"
        )
    counts = Counter(preferred for _, preferred in votes)
    (tuned,) = names - {BASE}
    test = sign_test(counts[tuned], counts[BASE])
    return VoteResult(
        tuned=counts[tuned],
        base=counts[BASE],
        equal=counts[None],
        ci_low=test.low,
        ci_high=test.high,
        p_value=test.p_value,
    )


def _vote(vote: dict[str, Any]) -> tuple[set[str], str | None]:
    """Return the two models of a vote, and the preferred one, or None."""
    models = {answer["model"] for answer in vote["answers"]}
    preferred = vote["preferred"]
    if not (len(models) == 2 and all(isinstance(name, str) for name in models)):
        raise ValueError
    if preferred is not None and preferred not in models:
        raise ValueError
    return models, preferred
