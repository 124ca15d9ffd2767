"""Which settings a search tries next: Optuna's algorithms.

Every answer is a function of the trials so far and the seed, so that a search that was killed goes
on as if it had not been. Each question is put to a study in memory that is made for it.
"""

import random
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial

from data.seeds import mix_seed
from lit.searching.space import Dimension, Settings, Space
from lit.searching.trials.halving import VALIDATIONS

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

QUASI_RANDOM = 6
"""Trials whose settings are spread evenly, before those so far decide where to look."""
DRAWS, RANDOM_DRAWS = 10, 500
"""How often settings are drawn until they are new: where they should be good, then anywhere."""


class Planner:
    """Suggests settings.

    Args:
        space: What varies.
        seed: Decides what is drawn.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed
        engine = torch.quasirandom.SobolEngine(len(space.dimensions), True, mix_seed(seed))
        self._even = engine.draw(QUASI_RANDOM, dtype=torch.float64).tolist()

    def suggest(self, tried: Sequence[tuple[Settings, Sequence[float] | None]]) -> Settings | None:
        """Return settings to try next; None if all have been tried.

        Args:
            tried: The settings of each earlier trial, and the losses of its validations: None for a
                trial that runs now, empty for one that failed.
        """
        known = [self.space.own, *(settings for settings, _ in tried)]
        for values in self._drawn(tried):
            settings = self.space.settings(values)
            if settings not in known:
                return settings
        return None

    def _drawn(
        self, tried: Sequence[tuple[Settings, Sequence[float] | None]]
    ) -> Iterator[dict[str, Any]]:
        """Yield values of the dimensions, the most promising first."""
        if len(tried) < QUASI_RANDOM:
            yield self._at(self._even[len(tried)])
        for attempt in range(DRAWS):
            yield self._draw(tried, attempt)
        draw = random.Random(mix_seed(self.seed, len(tried)))
        for _ in range(RANDOM_DRAWS):
            yield self._at([draw.random() for _ in self.space.dimensions])

    def _at(self, shares: Sequence[float]) -> dict[str, Any]:
        pairs = zip(self.space.dimensions, shares, strict=True)
        return {dimension.name: dimension.at(share) for dimension, share in pairs}

    def _draw(
        self, tried: Sequence[tuple[Settings, Sequence[float] | None]], attempt: int
    ) -> dict[str, Any]:
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=1,
            seed=mix_seed(self.seed, len(tried), attempt) % 2**32,
            constant_liar=True,
        )
        study = optuna.create_study(sampler=sampler)
        distributions = {x.name: _distribution(x) for x in self.space.dimensions}
        for settings, losses in tried:
            study.add_trial(self._known(settings, losses, distributions))
        params = study.ask(distributions).params
        return {x.name: _decode(x, params[x.name]) for x in self.space.dimensions}

    def _known(
        self,
        settings: Settings,
        losses: Sequence[float] | None,
        distributions: dict[str, BaseDistribution],
    ) -> optuna.trial.FrozenTrial:
        params = {x.name: _encode(x, settings[x.name]) for x in self.space.dimensions}
        state, value = TrialState.RUNNING, None
        if losses is not None:
            # A trial that was stopped after few validations counts for less than one that went on.
            done = len(losses) >= VALIDATIONS
            state = TrialState.COMPLETE if done else TrialState.PRUNED
            value = min(losses) if done else None
        return create_trial(
            state=state,
            value=value,
            params=params,
            distributions=distributions,
            intermediate_values=dict(enumerate(losses or (), 1)),
        )


def _ordered(dimension: Dimension) -> bool:
    choices = dimension.choices
    return len(choices) == 2 or all(isinstance(x, int | float) for x in choices)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if not dimension.choices:
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    indices = len(dimension.choices)
    if _ordered(dimension):
        return IntDistribution(0, indices - 1)
    return CategoricalDistribution(range(indices))


def _encode(dimension: Dimension, value: Any) -> Any:
    return dimension.choices.index(value) if dimension.choices else value


def _decode(dimension: Dimension, value: Any) -> Any:
    return dimension.choices[value] if dimension.choices else dimension.rounded(value)
