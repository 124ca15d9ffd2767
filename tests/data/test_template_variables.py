"""Values of a template's variables are part of the template, and a wrong name is said."""

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from data.template import choose_template
from data.templates.variables import read_values, shown, unread
from data.types import DataError

TURNS = [{"role": "user", "content": "Why?"}]
TEXTS = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
READS = "{% if style is defined %}[{{ style }}]{% endif %}" + TEXTS
LOOP = "{% for m in messages %}DO{% endfor %}"
VALUES: dict[str, Any] = {
    "true": True,
    "false": False,
    "null": None,
    "a number": -3,
    "a share": 1.5e-07,
    "text": "Pirate",
    "text that looks like a number": "007",
    "quotes and tags": "say \"hi\" 'ho' \\n %} {% endif %} {{ x }}",
    "lines": "a\nb\r\n\tc\u2028d",
    "other scripts": "Кратко 👍 \u0000",
}
BEGINNINGS = {
    "a text": "Hi ",
    "a newline": "\n\nHi ",
    "white space and a block": "  {% if true %}\nHi{% endif %}",
    "a block that strips": "{%- if true %}\nHi{% endif %}",
    "a macro": "{% macro said() %}({{ style }}){% endmacro %}{{ said() }}",
}


def rendered(tokenizer: PreTrainedTokenizerFast, **values: Any) -> str:
    return str(tokenizer.apply_chat_template(TURNS, tokenize=False, **values))


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize("kind", VALUES)
def test_a_template_with_a_value_writes_what_it_writes_when_the_value_is_passed(
    kind: str, beginning: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    value = VALUES[kind]
    tokenizer.chat_template = BEGINNINGS[beginning] + READS
    passed, other = rendered(tokenizer, style=value), rendered(tokenizer, style="other")
    choose_template(tokenizer, "chat", {"style": value})
    assert rendered(tokenizer) == passed
    # Whoever renders the template may still choose.
    assert rendered(tokenizer, style="other") == other
    assert read_values(tokenizer) == {"style": value}
    assert type(read_values(tokenizer)["style"]) is type(value)
    assert unread(tokenizer) == ""


def test_later_values_replace_earlier_ones_and_survive_the_start_token(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    tokenizer.chat_template = "{{ n }}" + READS
    choose_template(tokenizer, "chat", {"style": "a", "n": 1})
    choose_template(tokenizer, "chat", {"style": "b"})
    assert read_values(tokenizer) == {"style": "b", "n": 1}
    assert rendered(tokenizer) == "<|im_start|>1[b]Why?<|im_end|>"
    before = tokenizer.chat_template
    choose_template(tokenizer, "auto")
    assert tokenizer.chat_template == before
    choose_template(tokenizer, "plain")
    assert read_values(tokenizer) == {}


def test_the_default_of_several_templates_gets_the_values(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = {"default": READS, "rag": "no"}
    choose_template(tokenizer, "chat", {"style": "a"})
    assert rendered(tokenizer) == "[a]Why?<|im_end|>"


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("{% if mood %}{{ tone }}{% endif %}", "mood, tone"),
        ("{% if date is not defined %}{% set date = 'today' %}{% endif %}{{ date }}", "date"),
        (LOOP.replace("DO", "{% set y = 1 %}{% if y %}{% endif %}"), "no variable"),
        (LOOP.replace("DO", "{% if m %}{% set t = 1 %}{% endif %}{% if t %}{% endif %}"), "no"),
        ("{% generation %}{{ mood }}{% endgeneration %}", "mood"),
        ("{% macro a(b) %}{{ b }}{{ mood }}{% endmacro %}{{ a(eos_token) }}", "mood"),
    ],
)
def test_a_name_that_a_template_does_not_read_is_said_with_those_that_it_reads(
    template: str, names: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.chat_template = template + "{{ bos_token }}" + TEXTS
    choose_template(tokenizer, "chat", {"moood": True})
    said = unread(tokenizer)
    assert said.startswith("the template does not read moood, so it changes nothing; it reads ")
    assert said.partition("it reads ")[2].startswith(names)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"messages": "x"}, "messages, which every rendering sets itself"),
        ({"add_generation_prompt": True}, "which every rendering sets itself"),
        ({"eos_token": "x"}, "which every rendering sets itself"),
        ({"true": 1}, "which every rendering sets itself"),
        ({"a b": 1}, "the name 'a b': it must be a name of letters"),
        ({1: 1}, "the name 1: it must be a name of letters"),
        ({"a": [1]}, r"a: \[1\]; values are text, numbers, true, false, null"),
        ({"a": {}}, "values are text"),
        ({"a": float("nan")}, "which is no finite number"),
    ],
)
def test_a_value_that_no_template_can_take_is_refused(
    values: dict, reason: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(DataError, match=f"`template_kwargs` has .*{reason}"):
        choose_template(tokenizer, "chat", values)


def test_values_are_shown_as_they_are_typed() -> None:
    assert shown({"enable_thinking": False, "date": "1 мая"}) == (
        '{enable_thinking: false, date: "1 мая"}'
    )
