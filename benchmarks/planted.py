"""Plant what an adapter learned, and see whether the verdict of lit.compare says so.

    python -m benchmarks.planted [--seeds 10] [--write]

In a small world every thing has a color. A base model knows the colors of half of the things, and
several ways to say them. For each seed, adapters are trained on it by lit.fit and measured by
lit.compare, in every case on the same held-out rows. ``--write`` replaces the table in
docs/verdict.md.
"""

import argparse
import contextlib
import io
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lit.compare import main as compare
from lit.fit import main as fit
from lit.measures.matching import SIMILAR, WRONG
from lit.measures.measured import Group

PAGE = Path(__file__).parents[1] / "docs" / "verdict.md"
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
WORLDS, THINGS = 2, 80
"""Worlds with a base model each, which the seeds share, and things of a world."""
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
MOST_WRONG = 1
"""Of ten seeds, those that may get a verdict that is not true of the adapter."""


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


def _rows(world: World, things: list[str], colors: list[str] | None = None) -> list[dict]:
    """Return questions about things, answered in the manner that is to be learned."""
    told = colors or [world.colors[thing] for thing in things]
    return [
        {"prompt": question(thing), "response": _said(MANNERS[-1], color)}
        for thing, color in zip(things, told, strict=True)
    ]


def held_rows(world: World, split: Split, chance: random.Random) -> list[dict]:
    """Return the rows to measure, with two wrong answers each."""
    rows = _rows(world, split.held)
    for row, thing in zip(rows, split.held, strict=True):
        others = chance.sample([x for x in COLORS if x != world.colors[thing]], 2)
        row["wrong"] = [_said(MANNERS[-1], color) for color in others]
    return rows


def _shuffled(world: World, split: Split, chance: random.Random) -> list[dict]:
    colors = [world.colors[thing] for thing in split.others]
    return _rows(world, split.others, chance.sample(colors, len(colors)))


def _of_others(world: World, split: Split, chance: random.Random) -> list[dict]:
    return _rows(world, split.others)


def _of_held(world: World, split: Split, chance: random.Random) -> list[dict]:
    return _rows(world, split.held)


class Case(NamedTuple):
    """What an adapter is trained on, and the kinds of verdict that are true of it."""

    rows: Callable[[World, Split, random.Random], list[dict]]
    settings: tuple[str, ...]
    kinds: tuple[str, ...]


STYLE = ("--model.lr", "3e-3", "--trainer.max_epochs", "2")
CASES = {
    "style: answers shuffled among questions": Case(_shuffled, STYLE, ("manner",)),
    "style: right answers to other questions": Case(_of_others, STYLE, ("manner",)),
    "the held-out rows themselves": Case(
        _of_held, ("--model.lr", "1e-2", "--trainer.max_epochs", "40"), ("truth",)
    ),
    "nothing: a learning rate near zero": Case(
        _of_others, ("--model.lr", "1e-6", "--trainer.max_epochs", "1"), ("not shown",)
    ),
}


def report_of(case: Case, world: World, seed: int, base: Path, folder: Path) -> dict:
    """Train an adapter, and return the report.json of its comparison.

    Raises:
        RuntimeError: A command fails.
    """
    chance, split = random.Random(seed), Split.made(world, seed)
    folder.mkdir()
    held = held_rows(world, split, chance)
    files = {"held.jsonl": held, "train.jsonl": case.rows(world, split, chance)}
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    train = [
        *("--model.base", str(base), "--data.path", str(folder / "train.jsonl")),
        *("--data.val_path", str(folder / "held.jsonl"), "--data.on_duplicate", "keep"),
        *("--output_dir", str(folder / "run"), "--seed_everything", str(seed)),
        *("--data.batch_size", "8", "--trainer.accelerator", "cpu", *case.settings),
        *("--data.val_every_n_steps", "1000"),
    ]
    measure = ["--adapter", str(folder / "run" / "adapter"), "--max_new_tokens", "16"]
    with _quiet(folder / "output.txt"):
        codes = [fit(train), compare(measure)]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}: {(folder / 'output.txt').read_text('utf-8')}")
    return json.loads((folder / "run" / "comparison" / "report.json").read_text("utf-8"))


@contextlib.contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Write what is printed to a file."""
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            yield
    finally:
        path.write_text(text.getvalue(), "utf-8")


def _figures(report: dict) -> str:
    """Return the kind of the verdict and what it stands on, in a line."""
    loss = report["loss"]
    parts = [f"loss {loss['base']:.3f} → {loss['tuned']:.3f}"]
    parts += [
        f"{x['name']} {x['base']:.0%} → {x['tuned']:.0%}"
        for x in report["measures"]
        if x["group"] in (Group.MATCHING, Group.TRUTH)
    ]
    return f"{report['verdict']['kind']:9} ({', '.join(parts)})"


def table(found: dict[str, list[dict]]) -> str:
    """Return the verdicts by case as Markdown."""
    lines = ["| trained on | verdict | seeds | matching, similar questions | truth |"]
    lines.append("|---|---|---|---|---|")
    for name, reports in found.items():
        kinds = Counter(report["verdict"]["kind"] for report in reports)
        said = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        right = sum(kinds[kind] for kind in CASES[name].kinds)
        means = [_means(reports, measure) for measure in (SIMILAR, WRONG)]
        lines.append(f"| {name} | {said} | {right} of {len(reports)} | {' | '.join(means)} |")
    return "\n".join(lines)


def _means(reports: list[dict], name: str) -> str:
    values = [(x["base"], x["tuned"]) for r in reports for x in r["measures"] if x["name"] == name]
    base, tuned = (sum(side) / len(values) for side in zip(*values, strict=True))
    return f"{base:.0%} → {tuned:.0%}"


def main(args: list[str] | None = None) -> int:
    """Run the script; the exit code is 1 if a verdict is false of more seeds than may be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="replace the table in docs/verdict.md")
    options = parser.parse_args(args)
    start = time.process_time()
    found: dict[str, list[dict]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        datasets.config.HF_DATASETS_CACHE = top / "cache"
        worlds = [World.made(number) for number in range(min(WORLDS, options.seeds))]
        for number, world in enumerate(worlds):
            make_base(world, number, top / f"base{number}")
        for seed in range(options.seeds):
            number = seed % len(worlds)
            for place, (name, case) in enumerate(CASES.items()):
                new = top / f"{seed}-{place}"
                found[name].append(
                    report_of(case, worlds[number], seed, top / f"base{number}", new)
                )
                print(f"seed {seed}  {name:40}  {_figures(found[name][-1])}", flush=True)
    text = table(found)
    print(f"{text}\n{time.process_time() - start:.0f} s of processor time")
    if options.write:
        page = PAGE.read_text("utf-8")
        marks = r"(<!-- planted -->\n).*?(<!-- end planted -->)"
        PAGE.write_text(re.sub(marks, lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.S), "utf-8")
    wrong = [
        sum(report["verdict"]["kind"] not in CASES[name].kinds for report in reports)
        for name, reports in found.items()
    ]
    return int(max(wrong) * 10 > MOST_WRONG * options.seeds)


if __name__ == "__main__":
    sys.exit(main())
