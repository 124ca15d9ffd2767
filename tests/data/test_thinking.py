"""Chat templates of every usual shape: training sees the tokens that generation does."""

import itertools
import json
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from data.encoder import Encoder
from data.formats.turns import train_on_last
from data.report.row_issue import CUT, TOO_LONG
from data.splitting.split import split_train_val
from data.store import build_store
from data.template import choose_template, prompt_ids, stop_token
from data.truncation import MIN_PROMPT
from data.types import IGNORE, Example, Message, RowError, TooLongError

ASK = "{% if add_generation_prompt %}"
CONTENT = (
    "{%- set c = m.content %}{%- set t = m.reasoning_content | default('') %}"
    "{%- if '</think>' in c %}{%- set t = c.split('</think>')[0].split('<think>')[-1] | trim %}"
    "{%- set c = c.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
)
"""Takes an answer apart, into its thought and the rest."""
LATE = (
    "{%- if loop.last or (loop.index0 > ns.asked and t) %}<think>\n{{ t }}\n</think>\n\n{% endif %}"
)
LAST = (
    "{%- set ns = namespace(asked=0) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.asked = loop.index0 %}{%- endif %}{%- endfor %}"
)
THINKING = (
    LAST + "{%- for m in messages %}" + CONTENT + "<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}" + LATE + "{{ c }}{% else %}{{ m.content }}{% endif %}"
    "<|im_end|>\n{% endfor %}" + ASK + "<|im_start|>assistant\n"
)
SHAPES = {
    "Llama 3": "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n"
    "{{ m.content | trim }}<|eot|>{% endfor %}" + ASK + "<|head|>assistant<|/head|>\n\n{% endif %}",
    # The system text is the beginning of the first question.
    "Gemma": "{{ bos_token }}{% for m in messages if m.role != 'system' %}<|turn|>"
    "{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if loop.first and messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "{{ m.content | trim }}<|/turn|>\n{% endfor %}" + ASK + "<|turn|>model\n{% endif %}",
    # The system text stands before the last question, so every question rewrites the history.
    "Mistral": "{{ bos_token }}{% for m in messages if m.role != 'system' %}"
    "{% if m.role == 'user' %}[INST] {% if loop.revindex <= 2 and messages[0].role == 'system' and "
    "(loop.last or loop.nextitem.role == 'assistant') %}{{ messages[0].content }}\n\n{% endif %}"
    "{{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
    "Qwen 2.5": "{% if messages[0].role != 'system' %}<|im_start|>system\nHelp.<|im_end|>\n"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}" + ASK + "<|im_start|>assistant\n{% endif %}",
    "Qwen 3": THINKING + "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}",
    "Qwen 3.5": THINKING + "{% if enable_thinking is defined and not enable_thinking %}"
    "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}{% endif %}",
    "DeepSeek R1": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>"
    "{{ m.content }}{% elif m.role == 'assistant' %}<|Assistant|>"
    "{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}" + ASK + "<|Assistant|><think>\n{% endif %}",
}
OFF = {"enable_thinking": False}
TEMPLATES = {
    **{name: (name, {}) for name in SHAPES},
    "Qwen 3, off": ("Qwen 3", OFF),
    "Qwen 3.5, off": ("Qwen 3.5", OFF),
}
REWRITE = {"Qwen 3", "Qwen 3, off", "Qwen 3.5", "Qwen 3.5, off", "DeepSeek R1"}
THINK = {"Qwen 3", "Qwen 3.5", "DeepSeek R1"}
"""Templates whose prompts let the model think."""
SPECIAL = [
    *("<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>"),
    *("<|turn|>", "<|/turn|>", "[INST]", "[/INST]", "<|User|>", "<|Assistant|>"),
]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CORES = ("GPT-2", "Llama 3", "SentencePiece", "SentencePiece, every piece")
MERGING = ["a\n\nb", "a\n\n\nb", "a 4 2", "a  b", "It is 42", "Да, стол был холодным."] * 9


def make_core(kind: str) -> Tokenizer:
    """A small tokenizer whose white space and digits merge."""
    if kind.startswith("Sentence"):
        core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        core.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        if kind == "SentencePiece":
            core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            core.normalizer = normalizers.Sequence(
                [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
            )
        tokens, alphabet = [f"<0x{i:02X}>" for i in range(256)], []
    else:
        core = Tokenizer(models.BPE())
        pattern = {"GPT-2": GPT2, "Llama 3": LLAMA3}[kind]
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        core.decoder = decoders.ByteLevel()
        tokens, alphabet = [], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=620,
        special_tokens=[*SPECIAL, *tokens],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    core.train_from_iterator(MERGING, trainer)
    saved = json.loads(core.to_str())
    # Bytes are part of the vocabulary, and not tokens that are looked for in a text.
    saved["added_tokens"] = [x for x in saved["added_tokens"] if x["content"] not in tokens]
    return Tokenizer.from_str(json.dumps(saved))


@pytest.fixture(scope="module")
def cores() -> dict[str, Tokenizer]:
    return {kind: make_core(kind) for kind in CORES}


def made(cores: dict[str, Tokenizer], core: str, template: str) -> PreTrainedTokenizerFast:
    """A tokenizer with a template, and with values for its variables."""
    shape, values = TEMPLATES[template]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=cores[core],
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
        chat_template=SHAPES[shape],
    )
    tokenizer.add_tokens(["<think>", "</think>"])
    choose_template(tokenizer, "chat", values)
    return tokenizer


ANSWERS = {
    "words": Message("assistant", "It is."),
    "a newline first": Message("assistant", "\n\nIt is."),
    "spaces first": Message("assistant", "  It is."),
    "digits": Message("assistant", "42 is it."),
    "Cyrillic": Message("assistant", "Да, стол был холодным."),
    "a thought": Message("assistant", "It is 42.", reasoning_content="4 2\n\nHm."),
    "a thought inside": Message("assistant", "<think>\n4 2\n\nHm.\n</think>\n\nIt is 42."),
}
SYSTEM = Message("system", "Be brief.")


def conversation(answer: Message, turns: int, system: bool) -> list[Message]:
    """Turns with different questions and answers."""
    pairs = [
        (Message("user", f"Why {i}?"), answer._replace(content=f"{answer.content} {i}"))
        for i in range(turns)
    ]
    return [*([SYSTEM] if system else []), *itertools.chain(*pairs)]


def own_ids(tokenizer: PreTrainedTokenizerFast, messages: list[Message], prompt: bool) -> list[int]:
    """What the library itself makes of a conversation."""
    turns = [
        {"role": m.role, "content": m.content}
        | ({"reasoning_content": m.reasoning_content} if m.reasoning_content else {})
        for m in messages
    ]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=prompt, return_dict=False)


def answers_of(example: Example) -> Iterator[tuple[int, int, int]]:
    """Yield turn, beginning and end of each labeled answer."""
    turns = [i for i, m in enumerate(example.messages) if m.role == "assistant" and m.train]
    spans, place = [], 0
    for labeled, run in groupby(example.labels, key=lambda label: label != IGNORE):
        length = len(list(run))
        if labeled:
            spans.append((place, place + length))
        place += length
    for turn, (start, end) in zip(turns, spans, strict=True):
        yield turn, start, end


def bare(text: str) -> str:
    return "".join(text.split())


def refused(template: str, answer: Message) -> bool:
    """Whether a row has a thought that its template leaves out, or says that there is none."""
    if template in THINK:
        return False
    return bool(answer.reasoning_content) or (template in REWRITE and "<think>" in answer.content)


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_every_answer_is_learned_after_the_tokens_that_chat_gives(
    template: str, core: str, answer: str, cores: dict
) -> None:
    tokenizer = made(cores, core, template)
    encoder, stop = Encoder(tokenizer), stop_token(tokenizer)
    for turns, system in itertools.product((1, 3), (False, True)):
        messages = conversation(ANSWERS[answer], turns, system)
        (result,) = encoder.encode_all([messages])
        if refused(template, ANSWERS[answer]):
            assert isinstance(result, RowError)
            assert "thought" in str(result) or "thinks" in str(result)
            continue
        assert not isinstance(result, RowError), str(result)
        learned = []
        for example in result:
            for turn, start, end in answers_of(example):
                learned.append(turn)
                prompt = example.ids[:start]
                assert prompt == own_ids(tokenizer, messages[:turn], prompt=True)
                assert prompt == prompt_ids(messages[:turn], tokenizer)
                assert example.labels[start:end] == example.ids[start:end]
                assert example.ids[end - 1] == stop
                assert stop not in example.ids[start : end - 1]
                text = bare(tokenizer.decode(example.ids[start:end]))
                wanted = messages[turn].content.split("</think>")[-1]
                assert text.endswith(bare(wanted + tokenizer.decode([stop])))
                if template in THINK and "thought" in answer:
                    assert "42Hm.</think>" in text
            assert len(example.ids) == end
            (again,) = encoder.encode_all([example.messages])
            assert [(x.ids, x.labels) for x in again] == [(example.ids, example.labels)]
        assert sorted(learned) == [i for i, m in enumerate(messages) if m.role == "assistant"]
        whole = own_ids(tokenizer, messages, prompt=False)
        rewrites = template in REWRITE or (template == "Mistral" and system)
        merges = whole[: len(prompt)] != prompt
        if rewrites:
            assert len(result) == turns
        elif not merges:
            assert len(result) == 1
            assert result[0].ids == whole[: len(result[0].ids)]
        last = encoder.encode_all([train_on_last(messages)])[0]
        assert [x.ids for x in last] == [result[-1].ids]


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_long_prompts_are_cut_in_each_example_or_the_row_is_left_out(
    template: str, core: str, cores: dict
) -> None:
    tokenizer = made(cores, core, template)
    long = Message("user", " ".join(map(str, range(60))))
    turns = [*conversation(ANSWERS["words"], 2, True)]
    messages = [turns[0], long, *turns[2:]]
    (whole,) = Encoder(tokenizer).encode_all([messages])
    assert not isinstance(whole, RowError)
    limit = min(len(example.ids) for example in whole) - 20
    (cut,) = Encoder(tokenizer, limit).encode_all([messages])
    assert not isinstance(cut, RowError), str(cut)
    for before, after in zip(whole, cut, strict=True):
        assert (len(after.ids), after.cut) == (limit, len(before.ids) - limit)
        wanted, kept = ([i for i in x.labels if i != IGNORE] for x in (before, after))
        assert kept == wanted
        assert after.ids[: MIN_PROMPT // 2] == before.ids[: MIN_PROMPT // 2]
    for truncation in ("drop", "error"):
        (refusal,) = Encoder(tokenizer, limit, truncation).encode_all([messages])
        assert isinstance(refusal, TooLongError)
        assert refusal.tokens == max(len(example.ids) for example in whole) - limit


def rows_file(folder: Path, answers: list[str], **turn: Any) -> Path:
    """Conversations of two questions, with a long first one in the last row."""
    path = folder / "rows.jsonl"
    rows = []
    for i, answer in enumerate(answers):
        asked = " ".join(map(str, range(60))) if i == len(answers) - 1 else f"Why {i}?"
        turns = [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answer} | turn,
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": f"That is {i}."},
        ]
        rows.append(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    path.write_text("".join(rows), encoding="utf-8")
    return path


def test_a_row_that_becomes_several_examples_is_one_row_of_the_report_and_of_the_split(
    tmp_path: Path, cores: dict
) -> None:
    tokenizer = made(cores, "GPT-2", "Qwen 3")
    path = rows_file(tmp_path, [f"So {i}." for i in range(12)])
    store = build_store(path, tokenizer, max_length=160)
    report = store.report
    assert (report.read, report.used, report.examples, len(store)) == (12, 12, 24, 24)
    assert str(report).startswith("12 rows read, 12 used as 24 examples, 2 prompts cut by ")
    assert report.lines() == [
        "12 conversations are one example per answer, as the template writes earlier answers "
        "differently once others follow"
    ]
    assert "… and in line" not in report.listing(CUT)
    split = split_train_val(store, None, val_fraction=0.3, seed=1, near_duplicates=0.8)
    sides = [{store.location(row) for row in rows} for rows in (split.train_rows, split.val_rows)]
    assert sides[1]
    assert not sides[0] & sides[1]
    assert str(split.overlap) == ""
    # What is written as a validation row is the same example when it is read again.
    for row in range(len(store)):
        (again,) = Encoder(tokenizer, 160).encode_all([store.messages(row)])
        assert [(x.ids, x.labels) for x in again] == [store.example(row)[:2]]


def test_a_row_of_which_one_example_is_too_long_is_left_out_once(
    tmp_path: Path, cores: dict
) -> None:
    tokenizer = made(cores, "GPT-2", "Qwen 3")
    path = rows_file(tmp_path, ["So."] * 3)
    report = build_store(path, tokenizer, max_length=100, truncation="drop").report
    assert (report.read, report.used, report.examples) == (3, 2, 4)
    assert report.count(TOO_LONG) == 1


def test_repeated_conversations_are_found_whatever_number_of_examples_they_have(
    tmp_path: Path, cores: dict
) -> None:
    tokenizer = made(cores, "GPT-2", "Qwen 3")
    path = rows_file(tmp_path, ["So."] * 3)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]), encoding="utf-8")
    split = split_train_val(
        build_store(path, tokenizer, max_length=400), None, val_fraction=0.0, seed=1
    )
    assert len(split.overlap.repeated) == 2


@pytest.mark.parametrize(
    ("template", "turn", "said"),
    [
        ("DeepSeek R1", {}, "4 answers close a thought that the prompt opens"),
        ("Qwen 3.5", {}, ""),
        ("Qwen 3", {"train": False, "thinking": "Hm."}, "2 answers that are not learned stand"),
        ("Qwen 3", {"train": False}, ""),
        ("Qwen 3", {"thinking": "Hm."}, ""),
    ],
)
def test_what_of_thoughts_is_written_otherwise_than_filed_is_counted(
    template: str, turn: dict, said: str, tmp_path: Path, cores: dict
) -> None:
    path = rows_file(tmp_path, ["So 1.", "So 2."], **turn)
    store = build_store(path, made(cores, "GPT-2", template), max_length=400)
    lines = [line for line in store.report.lines() if "one example per answer" not in line]
    assert len(lines) == bool(said)
    assert all(line.startswith(said) for line in lines)


def test_an_empty_thought_is_learned_where_the_prompt_opens_one(cores: dict) -> None:
    tokenizer = made(cores, "GPT-2", "DeepSeek R1")
    (result,) = Encoder(tokenizer).encode_all([conversation(ANSWERS["words"], 1, False)])
    assert not isinstance(result, RowError)
    ids = [label for label in result[0].labels if label != IGNORE]
    assert tokenizer.decode(ids) == "\n</think>\n\nIt is. 0</s>"


def test_tags_of_thoughts_neither_end_an_answer_nor_are_text_where_they_are_special(
    cores: dict,
) -> None:
    tokenizer = made(cores, "GPT-2", "Qwen 3.5")
    plain = Encoder(tokenizer).encode_all([conversation(ANSWERS["a thought inside"], 2, True)])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    special = Encoder(tokenizer).encode_all([conversation(ANSWERS["a thought inside"], 2, True)])
    assert str(special) == str(plain)
