"""Which settings come next, and which trials are stopped, are functions of the trials so far."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from lit.searching.planner import QUASI_RANDOM, Planner
from lit.searching.space import Dimension, Settings, Space, default_space
from lit.searching.trials.halving import (
    REDUCTION,
    RUNGS,
    VALIDATIONS,
    expected_validations,
    stops,
)

OWN = {
    "model.lr": 2e-4,
    "model.lora.r": 8,
    "model.lora.lora_alpha": 16.0,
    "model.lora.target_modules": "projections",
}
SPACE = default_space(OWN, None)
Curve = list[float]


def search(planner: Planner, loss: Callable[[Settings], float], trials: int) -> list[Settings]:
    """Return the settings of trials whose loss does not change."""
    tried: list[tuple[Settings, Curve]] = []
    for _ in range(trials):
        settings = planner.suggest(tried)
        assert settings is not None
        tried.append((settings, [loss(settings)] * VALIDATIONS))
    return [settings for settings, _ in tried]


def distance(settings: Settings) -> float:
    """A loss that is lowest at one learning rate."""
    return abs(np.log10(settings["model.lr"]) + 3.0) + abs(settings["model.lora.r"] - 16) / 100


def test_a_planner_that_is_made_again_goes_on_with_the_same_settings() -> None:
    whole = search(Planner(SPACE, 7), distance, 12)
    tried: list[tuple[Settings, Curve]] = []
    for settings in whole:
        # A new process for each trial.
        assert Planner(SPACE, 7).suggest(tried) == settings
        tried.append((settings, [distance(settings)] * VALIDATIONS))
    assert search(Planner(SPACE, 8), distance, 12) != whole


@pytest.mark.parametrize("seed", range(5))
def test_the_first_trials_cover_the_range_evenly(seed: int) -> None:
    first = search(Planner(SPACE, seed), distance, QUASI_RANDOM)
    lrs = np.sort([np.log10(x["model.lr"]) for x in first])
    assert np.diff([-4.7, *lrs, -2.7]).max() < 1.0
    assert len({x["model.lora.r"] for x in first}) >= 3
    assert len({x["model.lora.target_modules"] for x in first}) == 2


def test_later_trials_are_near_the_best_ones() -> None:
    near = []
    for seed in range(5):
        tried = search(Planner(SPACE, seed), distance, 20)
        near.append(np.mean([distance(x) for x in tried[10:]]) < distance_of_random())
    assert sum(near) >= 4


def distance_of_random() -> float:
    draw = random.Random(0)
    shares = [[draw.random() for _ in SPACE.dimensions] for _ in range(300)]
    drawn = [{x.name: x.at(s) for x, s in zip(SPACE.dimensions, y, strict=True)} for y in shares]
    return float(np.mean([distance(x) for x in drawn]))


def test_no_settings_are_tried_twice_and_a_small_space_ends() -> None:
    space = Space((Dimension("model.lora.r", (4, 8)), Dimension("model.lr", (1e-4, 2e-4))), OWN)
    planner, tried = Planner(space, 0), []
    for _ in range(10):
        if (settings := planner.suggest(tried)) is None:
            break
        tried.append((settings, [1.0] * VALIDATIONS))
    # The fourth is the config's own.
    assert len(tried) == 3
    assert len({str(settings) for settings, _ in tried}) == 3


def test_trials_that_failed_or_run_do_not_stop_the_search() -> None:
    planner = Planner(SPACE, 0)
    tried = [(settings, [distance(settings)] * 9) for settings in search(planner, distance, 8)]
    odd = [(tried[0][0], []), (tried[1][0], None), *tried[2:]]
    found = planner.suggest(odd)
    assert found is not None
    assert found not in [settings for settings, _ in tried]


def goes_on(others: list[Curve], curve: Curve) -> bool:
    """Successive halving by its definition: at each rung, one of the best third so far."""
    if len(curve) not in RUNGS or len(curve) >= VALIDATIONS:
        return True
    there = sorted(x[len(curve) - 1] for x in [*others, curve] if len(x) >= len(curve))
    return curve[-1] <= there[max(1, len(there) // REDUCTION) - 1]


@pytest.mark.parametrize("seed", range(8))
def test_trials_stop_by_successive_halving(seed: int) -> None:
    draw = np.random.default_rng(seed)
    others: list[Curve] = []
    for _ in range(9):
        curve: Curve = []
        level = draw.normal()
        for _ in range(VALIDATIONS):
            curve.append(float(level + draw.normal() / 2))
            stopped = stops(others, curve)
            assert stopped is not goes_on(others, curve)
            if stopped:
                break
        others.append(curve)
    assert len({len(curve) for curve in others}) > 1


def test_the_expected_validations_are_those_of_tries_in_random_order() -> None:
    draw, tries, searches = np.random.default_rng(0), 12, 600
    counts = np.zeros(tries)
    for _ in range(searches):
        others: list[Curve] = []
        for number in range(tries):
            level, curve = draw.normal(), []
            while not curve or (goes_on(others, curve) and len(curve) < VALIDATIONS):
                curve.append(float(level))
            others.append(curve)
            counts[number] += len(curve)
    expected = [expected_validations(number) for number in range(1, tries + 1)]
    assert tuple(RUNGS[0] * REDUCTION**i for i in range(len(RUNGS))) == RUNGS
    assert RUNGS[-1] == VALIDATIONS
    assert expected[0] == VALIDATIONS
    assert np.abs(counts / searches - expected).max() < 0.4
    assert abs(counts.sum() / searches - sum(expected)) < 0.1 * sum(expected)
