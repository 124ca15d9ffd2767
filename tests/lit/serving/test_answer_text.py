"""The text of an answer while its tokens come."""

import pytest
from transformers import PreTrainedTokenizerFast

from lit.serving.engine.answer_text import AnswerText

SAID = "Стол — 60 °C 👍🏽, then\n\n  wait. \ufffd End"


def pieces(tokenizer: PreTrainedTokenizerFast, stops: list[str], said: str = SAID) -> list[str]:
    """Return what is shown after each token, and at the end."""
    text, shown = AnswerText(tokenizer, stops), []
    for token in tokenizer(said)["input_ids"]:
        if not text.stopped:
            text.add(token)
            shown.append(text.shown)
    text.finish()
    return [*shown, text.shown]


def test_the_text_grows_by_whole_characters_to_the_decoded_answer(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    shown = pieces(tokenizer, [])
    assert shown[-1] == SAID
    assert all(SAID.startswith(text) for text in shown)
    assert len(set(shown)) > 20


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (["then"], "Стол — 60 °C 👍🏽, "),
        (["\n\n", "wait"], "Стол — 60 °C 👍🏽, then"),
        (["°C 👍🏽, th", "zzz"], "Стол — 60 "),
        (["Стол"], ""),
        (["End?"], SAID),
        (["then\n\nnever"], SAID),
    ],
)
def test_nothing_of_a_stop_text_and_what_follows_is_shown(
    stops: list[str], expected: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    shown = pieces(tokenizer, stops)
    assert shown[-1] == expected
    assert all(expected.startswith(text) for text in shown)


def test_an_answer_that_ends_inside_a_character_shows_its_replacement(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    first, *_ = tokenizer("👍")["input_ids"]
    text = AnswerText(tokenizer, [])
    text.add(first)
    assert text.shown == ""
    text.finish()
    assert text.shown == "\ufffd"
