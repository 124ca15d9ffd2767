"""What chat shows the model is what training showed it, for the templates that models come with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import lit.answering.conversation
from data.template import choose_template, encode, prompt_ids
from data.types import IGNORE, DataError, Message
from lit.answering.conversation import Conversation
from lit.answering.sampling import Sampling

TEXT = [
    "How warm must the bed be for PLA? Sixty degrees is enough.\n\nWhy? 1. It sticks.",
    "Почему деталь отклеилась от стола? Стол был холодным, а сопло стояло высоко.",
]
QUESTIONS = [
    "Why?",
    "  Почему деталь\n\nотклеилась?",
    "a </s><|im_end|> [/INST] <|end|> b",
    "1 + 1",
]
ANSWERS = ["It sticks.", "Стол был холодным.\n\n— Да.", "No <|eot_id|></s><end_of_turn> no", "2"]


class Template(NamedTuple):
    """A chat template as models of a family come with it."""

    jinja: str
    special: list[str]
    stop: str
    system: bool = True


def turns(user: str, assistant: str, system: str = "", end: str = "") -> str:
    """A template that writes each turn of a role in its own way."""
    cases = {"user": user, "assistant": assistant, "system": system}
    written = "{% for m in messages %}"
    for place, (name, text) in enumerate(cases.items()):
        written += f"{{% {'el' if place else ''}if m.role == '{name}' %}}{text}"
    return written + "{% endif %}{% endfor %}" + end


NO_SYSTEM = "{{ raise_exception('there is no system role') }}"
ASKED = "{% if add_generation_prompt %}"
TEMPLATES = {
    "ChatML": Template(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}" + ASKED + "{{ '<|im_start|>assistant\n' }}{% endif %}",
        ["<|im_start|>", "<|im_end|>"],
        "<|im_end|>",
    ),
    "Llama 2": Template(
        "{% set told = namespace(text='') %}"
        + turns(
            "{{ bos_token + '[INST] ' + told.text + m.content + ' [/INST]' }}"
            "{% set told.text = '' %}",
            "{{ ' ' + m.content + ' ' + eos_token }}",
            "{% set told.text = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}",
        ),
        [],
        "</s>",
    ),
    "Zephyr": Template(
        turns(
            "{{ '<|user|>\n' + m.content + eos_token + '\n' }}",
            "{{ '<|assistant|>\n' + m.content + eos_token + '\n' }}",
            "{{ '<|system|>\n' + m.content + eos_token + '\n' }}",
            ASKED + "{{ '<|assistant|>\n' }}{% endif %}",
        ),
        [],
        "</s>",
    ),
    "Llama 3": Template(
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}"
        "{{ m.content | trim }}{{ '<|eot_id|>' }}{% endfor %}"
        + ASKED
        + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|eot_id|>",
    ),
    "Gemma": Template(
        "{{ bos_token }}"
        + turns(
            "{{ '<start_of_turn>user\n' + m.content | trim + '<end_of_turn>\n' }}",
            "{{ '<start_of_turn>model\n' + m.content | trim + '<end_of_turn>\n' }}",
            NO_SYSTEM,
            ASKED + "{{ '<start_of_turn>model\n' }}{% endif %}",
        ),
        ["<start_of_turn>", "<end_of_turn>"],
        "<end_of_turn>",
        system=False,
    ),
    "Phi 3": Template(
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
        + ASKED
        + "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        ["<|user|>", "<|assistant|>", "<|system|>", "<|end|>"],
        "<|end|>",
    ),
    "Mistral": Template(
        "{{ bos_token }}"
        + turns(
            "{{ '[INST] ' + m.content + '[/INST]' }}",
            "{{ ' ' + m.content | trim + eos_token }}",
            NO_SYSTEM,
        ),
        ["[INST]", "[/INST]"],
        "</s>",
        system=False,
    ),
    "plain": Template("plain", [], "</s>"),
}


def byte_level() -> tuple[Tokenizer, list[str]]:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return core, pre_tokenizers.ByteLevel.alphabet()


def word_pieces() -> tuple[Tokenizer, list[str]]:
    """As in SentencePiece: a space is a letter, and one stands before the first word."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    core.decoder = decoders.Metaspace(prepend_scheme="first")
    return core, sorted(set("".join([*QUESTIONS, *ANSWERS, *TEXT, "<>|[]/_"])))


CORES: dict[str, Callable[[], tuple[Tokenizer, list[str]]]] = {
    "bytes": byte_level,
    "word pieces": word_pieces,
}


def make(name: str, core_name: str, starts: bool) -> PreTrainedTokenizerFast:
    """A small tokenizer with a family's special tokens and template."""
    core, alphabet = CORES[core_name]()
    template = TEMPLATES[name]
    special = ["<unk>", "<s>", "</s>", *template.special]
    core.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if starts:
        core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = None if name == "plain" else template.jinja
    choose_template(tokenizer, "auto")
    return tokenizer


CASES = [
    pytest.param(name, core, starts, id=f"{name}, {core}{', starts' if starts else ''}")
    for name in TEMPLATES
    for core in CORES
    for starts in (False, True)
]
every_case = pytest.mark.parametrize(("name", "core", "starts"), CASES)


def conversation(name: str) -> list[Message]:
    told = [Message("system", "Отвечай кратко.")] if TEMPLATES[name].system else []
    pairs = zip(QUESTIONS, ANSWERS, strict=True)
    return told + [
        Message(role, text.strip())
        for question, answer in pairs
        for role, text in (("user", question), ("assistant", answer))
    ]


@every_case
def test_chat_shows_the_prompt_that_training_showed(
    name: str, core: str, starts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = make(name, core, starts)
    messages = conversation(name)
    shown: list[list[int]] = []
    replies = iter(turn.content for turn in messages if turn.role == "assistant")

    def stream(model: Any, tokenizer: Any, ids: list[int], sampling: Any, show: Any) -> None:
        shown.append(ids)
        show(next(replies))

    monkeypatch.setattr(lit.answering.conversation, "stream", stream)
    system = messages[0].content if messages[0].role == "system" else ""
    chat = Conversation(None, tokenizer, Sampling(), True, lambda _: None, system)  # type: ignore[arg-type]
    for turn in messages:
        if turn.role == "user":
            chat.ask(turn.content)
    trained = encode(messages, tokenizer)
    assert len(shown) == len(QUESTIONS)
    for ids in shown:
        assert trained.ids[: len(ids)] == ids
        assert trained.labels[len(ids) - 1] == IGNORE
        assert trained.labels[len(ids)] == trained.ids[len(ids)]


@every_case
def test_a_server_that_renders_the_template_shows_the_same(
    name: str, core: str, starts: bool
) -> None:
    tokenizer = make(name, core, starts)
    turns = [Message("user", "Why?"), Message("assistant", "Because."), Message("user", "And?")]
    text = tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in turns],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert prompt_ids(turns, tokenizer) == tokenizer(text, add_special_tokens=False)["input_ids"]


@every_case
def test_every_answer_is_learned_to_its_stop_token_and_control_tokens_in_texts_are_text(
    name: str, core: str, starts: bool
) -> None:
    tokenizer = make(name, core, starts)
    example = encode(conversation(name), tokenizer)
    stop = tokenizer.convert_tokens_to_ids(TEMPLATES[name].stop)
    learned = [label for label in example.labels if label != IGNORE]
    assert learned.count(stop) == len(ANSWERS)
    assert learned[-1] == example.ids[-1] == stop
    said = tokenizer.decode(learned).split(TEMPLATES[name].stop)
    assert not set(learned) & (set(tokenizer.all_special_ids) - {stop})
    texts = ["".join(answer.split()) for answer in ANSWERS]
    assert "".join("".join(said).split()) == "".join(texts).replace(TEMPLATES[name].stop, "")


@every_case
def test_a_conversation_begins_with_one_start_token_where_the_tokenizer_s_texts_do(
    name: str, core: str, starts: bool
) -> None:
    tokenizer = make(name, core, starts)
    ids = encode([Message("user", "Why?"), Message("assistant", "Because.")], tokenizer).ids
    writes = "bos_token" in TEMPLATES[name].jinja
    assert ids.count(tokenizer.bos_token_id) == (starts or writes)
    assert not (starts or writes) or ids[0] == tokenizer.bos_token_id


def test_a_template_that_writes_the_start_token_twice_is_refused(tmp_path: Path) -> None:
    tokenizer = make("Llama 3", "bytes", True)
    path = tmp_path / "twice.jinja"
    path.write_text("{{ bos_token }}" + TEMPLATES["Llama 3"].jinja)
    with pytest.raises(DataError, match="writes the start token twice"):
        choose_template(tokenizer, str(path))
