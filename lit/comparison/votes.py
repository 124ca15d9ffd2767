"""Blind votes on the answers of both models, from a file that the page of lit.serve wrote."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from data.types import DataError
from lit.comparison.result import VoteResult
from lit.messages import tr
from lit.report.page import Section
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
            raise DataError(
                tr("{path} is not a file: give the votes.json of lit.serve's page", path=path)
            )
        if path.stat().st_size > MAX_BYTES:
            raise DataError(
                tr(
                    "{path} has more than {max_bytes} bytes: it is not a file of votes",
                    path=path,
                    max_bytes=MAX_BYTES,
                )
            )
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise ValueError
        votes = [_vote(vote) for vote in content["votes"]]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            tr(
                "{path} is not a file of votes that lit.serve's page wrote ({type})",
                path=path,
                type=type(error).__name__,
            )
        ) from None
    names = {name for models, _ in votes for name in models}
    if len(names) != 2 or BASE not in names:
        found = ", ".join(sorted(names)) or "nothing"
        raise DataError(
            tr(
                "{path} has votes on {found}; a comparison shows those on {base} and one other "
                "model",
                path=path,
                found=found,
                base=BASE,
            )
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


def votes_section(votes: VoteResult) -> Section:
    """Return the section of a report about blind votes."""
    decided = votes.tuned + votes.base
    share = f"{votes.tuned / decided:.0%}" if decided else "–"
    text = tr(
        "A person preferred one of two answers without knowing which model gave it, on the page of "
        "lit.serve. The interval is the exact 95% interval of the tuned model's share of the votes "
        "that prefer one; p is that of the sign test, for two models that are equally good."
    )
    headers = [
        *(tr("tuned better"), tr("base better"), tr("equal"), tr("share of tuned")),
        *(tr("95% interval"), "p"),
    ]
    row = [
        *(str(votes.tuned), str(votes.base), str(votes.equal), share),
        f"{votes.ci_low:.0%} … {votes.ci_high:.0%}",
        f"{votes.p_value:.3f}",
    ]
    return Section(tr("Blind votes"), text, headers, [row])
