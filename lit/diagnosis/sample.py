"""A model folder and rows that are made on the spot, so that a check needs no network."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 320
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "the bed of a printer is warm and its nozzle is hot; why would a part come off it?"
WORDS = TEXT.split()


class Size(NamedTuple):
    """The size of a model."""

    hidden_size: int
    layers: int


SMALL = Size(128, 2)
"""A model whose numbers are checked."""
MEDIUM = Size(512, 8)
"""A model whose steps are timed: 26 million parameters."""


def make_model(size: Size, family: str = "llama", **changes: object) -> PreTrainedModel:
    """Return a random model of a family, in eval mode and float32, the same at each call.

    It has grouped heads of 32 values, as a family of today has.
    """
    heads = size.hidden_size // 32
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCABULARY,
        hidden_size=size.hidden_size,
        intermediate_size=3 * size.hidden_size,
        num_hidden_layers=size.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=32,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **changes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


def write_model(folder: Path, size: Size) -> Path:
    """Write a model folder with a byte-level tokenizer and a chat template, and return it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(WORDS, trainer)
    pad, begin, end = SPECIAL
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=pad,
        bos_token=begin,
        eos_token=end,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    make_model(size).save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: int, words: int) -> Path:
    """Write questions with answers of about that many words, and return the file."""
    lines = []
    for number in range(rows):
        text = " ".join(WORDS[(number * 7 + i * 5) % len(WORDS)] for i in range(words))
        lines.append(json.dumps({"question": f"{number}: {text}?", "answer": f"{text}."}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
