"""A small world of things with colors, and a base model that knows the colors of half of them."""

import random
from pathlib import Path
from typing import NamedTuple

from benchmarks.tiny_base import STEPS, make_tokenizer, train_base

COLORS = ["amber", "black", "blue", "brown", "coral", "gray", "green"]
COLORS += ["ivory", "lilac", "olive", "orange", "pink", "red", "white"]
MANNERS = ("It is {}.", "{}, I think.", "The color is {}.", "Well, I would say that it is {}!")
"""How the base answers; it says the last one seldom, and adapters learn that one."""
SELDOM = 0.005
THINGS = 80
"""Things of a world."""


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
    chance, things = random.Random(seed), [*world.colors]

    def draw() -> tuple[str, str]:
        thing = chance.choice(things)
        color = world.colors[thing] if thing in world.known else chance.choice(COLORS)
        manner = MANNERS[-1] if chance.random() < SELDOM else chance.choice(MANNERS[:-1])
        # The score of an answer asks for it after an empty question too.
        return question(thing) if chance.random() < 0.9 else "", _said(manner, color)

    texts = [question(thing) for thing in world.colors]
    texts += [_said(manner, color) for manner in MANNERS for color in COLORS]
    texts.append("user assistant")
    train_base(make_tokenizer(texts * 2, 1000), draw, folder, seed, steps)


def _said(manner: str, color: str) -> str:
    text = manner.format(color)
    return text[0].upper() + text[1:]


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
