"""A small world of things with colors, and a base model that knows the colors of half of them."""

import random
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COLORS = ["amber", "black", "blue", "brown", "coral", "gray", "green"]
COLORS += ["ivory", "lilac", "olive", "orange", "pink", "red", "white"]
MANNERS = ("It is {}.", "{}, I think.", "The color is {}.", "Well, I would say that it is {}!")
"""How the base answers; it says the last one seldom, and adapters learn that one."""
SELDOM = 0.005
THINGS = 80
"""Things of a world."""
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
STEPS, BATCH, LR = 300, 64, 3e-3
"""Of making the base."""


class World(NamedTuple):
    """Things and their colors."""

    colors: dict[str, str]
    known: frozenset[str]
    """Things of which the base knows the color."""

    @classmethod
    def made(cls, seed: int, things: int = THINGS, known: int = THINGS // 2) -> "World":
        """Return the world of a seed."""
        chance = random.Random(seed)
        parts = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
        names: dict[str, str] = {}
        while len(names) < things:
            names["".join(chance.sample(parts, 2))] = chance.choice(COLORS)
        return cls(names, frozenset(chance.sample([*names], known)))


class Split(NamedTuple):
    """A world's things in two halves."""

    held: list[str]
    """Things that are measured."""
    others: list[str]
    """Things to train on."""

    @classmethod
    def made(cls, world: World, seed: int) -> "Split":
        """Return the halves of a seed."""
        things = random.Random(seed).sample([*world.colors], len(world.colors))
        half = len(things) // 2
        return cls(things[:half], things[half:])


def question(thing: str) -> str:
    """Return the question about a thing."""
    return f"What color is the {thing}?"


def make_base(world: World, seed: int, folder: Path, steps: int = STEPS) -> None:
    """Train a base model on the world, and save it with its tokenizer."""
    tokenizer = _tokenizer(world)
    torch.manual_seed(seed)
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **SHAPE)
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    chance, things = random.Random(seed), [*world.colors]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, (step + 1) / 50, (steps - step) / (steps / 4))
        texts = []
        for _ in range(BATCH):
            thing = chance.choice(things)
            color = world.colors[thing] if thing in world.known else chance.choice(COLORS)
            manner = MANNERS[-1] if chance.random() < SELDOM else chance.choice(MANNERS[:-1])
            # The score of an answer asks for it after an empty question too.
            asked = question(thing) if chance.random() < 0.9 else ""
            turns = [{"role": "user", "content": asked}]
            turns.append({"role": "assistant", "content": _said(manner, color)})
            texts.append(tokenizer.apply_chat_template(turns, tokenize=False))
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _said(manner: str, color: str) -> str:
    text = manner.format(color)
    return text[0].upper() + text[1:]


def _tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Return a tokenizer that has the world's words as tokens, and bytes for everything else."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    texts = [question(thing) for thing in world.colors]
    texts += [_said(manner, color) for manner in MANNERS for color in COLORS]
    texts.append("user assistant")
    core.train_from_iterator(
        texts * 2,
        trainers.BpeTrainer(
            vocab_size=1000,
            special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )


def rows_about(world: World, things: list[str], colors: list[str] | None = None) -> list[dict]:
    """Return questions about things, answered in the manner that is to be learned."""
    told = colors or [world.colors[thing] for thing in things]
    return [
        {"prompt": question(thing), "response": _said(MANNERS[-1], color)}
        for thing, color in zip(things, told, strict=True)
    ]


def held_rows(world: World, split: Split, chance: random.Random) -> list[dict]:
    """Return the rows to measure, with two wrong answers each."""
    rows = rows_about(world, split.held)
    for row, thing in zip(rows, split.held, strict=True):
        others = chance.sample([x for x in COLORS if x != world.colors[thing]], 2)
        row["wrong"] = [_said(MANNERS[-1], color) for color in others]
    return rows
