"""The Modelfile's template writes conversations as the chat template of training does."""

from types import SimpleNamespace

import pytest
from transformers import PreTrainedTokenizerFast

from lit.exporting.modelfile import modelfile
from lora.config import ConfigError
from tests.adversary.modelfile_parser import parse
from tests.conftest import CHATML
from tests.lit.exporting.go_template import render

SPLIT = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
LLAMA31 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n\n"
    "{{ system }}<|eot_id|>" + LLAMA3.removeprefix("{{ bos_token }}")
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set first = '' %}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}"
    "\n{{ first if loop.first else '' }}{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    SPLIT + "{% for m in turns %}{% if m['role'] == 'user' %}"
    "[INST] {% if loop.last and system is defined %}{{ system }}\n\n{% endif %}{{ m['content'] }}"
    "[/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA2 = (
    SPLIT + "{% for m in turns %}{% if m['role'] == 'user' %}[INST] "
    "{% if loop.first and system is defined %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}"
    "{{ m['content'] }} [/INST]{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
QWEN = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    'You are Qwen, "made" to help.<|im_end|>\n{% endif %}' + CHATML
)
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + GEMMA
TEMPLATES = {
    "ChatML": CHATML,
    "Llama 3": LLAMA3,
    "Llama 3.1": LLAMA31,
    "Gemma": GEMMA,
    "Mistral": MISTRAL,
    "Llama 2": LLAMA2,
    "Qwen": QWEN,
    "plain": "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}",
}
TURNS = [
    {"role": "user", "content": "What is {{ PLA }}?"},
    {"role": "assistant", "content": 'A "plastic"\nof corn.'},
    {"role": "user", "content": "How warm?"},
    {"role": "assistant", "content": "60 °C -}}"},
    {"role": "user", "content": "Почему?"},
]
SYSTEM = {"role": "system", "content": "Answer {{ briefly }}."}
ENDS = ["<|eot_id|>", "<end_of_turn>"]
"""Special tokens that the small tokenizer lacks."""
MODEL = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=2))


@pytest.fixture
def tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The small tokenizer with the ends of turns of other families."""
    tokenizer.add_special_tokens({"additional_special_tokens": ENDS})
    return tokenizer


def commands(tokenizer: PreTrainedTokenizerFast) -> dict[str, str]:
    return dict(parse(modelfile(MODEL, tokenizer)))  # type: ignore[arg-type]


def in_ollama(written: dict[str, str], messages: list[dict[str, str]]) -> str:
    """Return the prompt that Ollama makes of a request."""
    if messages[0]["role"] != "system" and "system" in written:
        messages = [{"role": "system", "content": written["system"]}, *messages]
    systems = [m["content"] for m in messages if m["role"] == "system"]
    listed = [{"Role": m["role"], "Content": m["content"]} for m in messages]
    return render(written["template"], {"System": "\n\n".join(systems), "Messages": listed})


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("questions", [1, 2, 3])
@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["alone", "system"])
def test_a_conversation_is_written_as_in_training(
    name: str, questions: int, system: list, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    messages = [*system, *TURNS[: 2 * questions - 1]]
    wanted = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert in_ollama(commands(tokenizer), messages) == wanted


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_at_the_end_is_left_open_and_an_earlier_one_is_closed(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    written = commands(tokenizer)
    assert in_ollama(written, TURNS[:2]).endswith(TURNS[1]["content"])
    whole = in_ollama(written, TURNS[:3])
    end = tokenizer.apply_chat_template(TURNS[:2], tokenize=False).partition(TURNS[1]["content"])[2]
    assert end
    assert whole.partition(TURNS[1]["content"])[2].startswith(end)


def test_a_default_system_text_is_written_once_as_system(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer.chat_template = QWEN
    text = modelfile(MODEL, tokenizer)  # type: ignore[arg-type]
    assert text.count("You are Qwen") == 1
    assert commands(tokenizer)["system"] == 'You are Qwen, "made" to help.'
    tokenizer.chat_template = CHATML
    assert "system" not in commands(tokenizer)


def test_the_stops_and_greedy_answers_are_set(tokenizer: PreTrainedTokenizerFast) -> None:
    written = commands(tokenizer)
    assert (written["stop"], written["temperature"]) == ("<|im_end|>", "0")


def test_a_template_that_takes_no_system_text_says_so(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = NO_SYSTEM
    text = modelfile(MODEL, tokenizer)  # type: ignore[arg-type]
    assert "# The chat template of training takes no system text" in text
    wanted = tokenizer.apply_chat_template(TURNS, tokenize=False, add_generation_prompt=True)
    for messages in (TURNS, [SYSTEM, *TURNS]):
        assert in_ollama(commands(tokenizer), messages) == wanted


def test_a_template_with_a_date_says_so(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = "{{ strftime_now('%d %B %Y') }}\n" + CHATML
    assert "writes the date" in modelfile(MODEL, tokenizer)  # type: ignore[arg-type]


NUMBERED = "{% for m in messages %}{{ loop.index }} {{ m['content'] }}{{ eos_token }}{% endfor %}"
LAST_ONLY = (
    "{% for m in messages %}{% if loop.last or m['role'] == 'user' %}{{ m['content'] }}"
    "{% endif %}{{ eos_token }}{% endfor %}"
)
TWICE = "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{{ eos_token }}{% endfor %}"


@pytest.mark.parametrize("template", [NUMBERED, LAST_ONLY, TWICE])
def test_a_template_that_cannot_be_written_is_refused(
    template: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(ConfigError, match="cannot be written as a template of Ollama"):
        modelfile(MODEL, tokenizer)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("a  {{- if .X }} b {{- end }}", "a b"),
        ("a\n{{ if .Y }}b{{ else if .X }}c{{ else }}d{{ end -}}\n e", "a\nce"),
        ('{{ range $i, $m := .L }}{{ $i }}{{ .V }}{{ "}}\\"" }}{{ end }}', '0x}}"1y}}"'),
        ("{{ if eq (len (slice .L 1)) 1 }}one{{ end }}{{ $.X }}", "one1"),
    ],
)
def test_the_renderer_follows_the_rules_of_go(template: str, written: str) -> None:
    data = {"X": 1, "Y": "", "L": [{"V": "x"}, {"V": "y"}]}
    assert render(template, data) == written


@pytest.mark.parametrize("template", ["{{ if .X }}", "{{ end }}", "{{ .X", "{{ nothing .X }}"])
def test_the_renderer_refuses_what_go_does_not_parse(template: str) -> None:
    with pytest.raises(ValueError, match=r"end|unclosed|defined|unexpected"):
        render(template, {"X": 1})
