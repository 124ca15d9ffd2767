"""What trials take, as far as is known: measured before the first one, corrected by each."""

from lit.searching.records import Trial
from lit.searching.trials.halving import VALIDATIONS

MEMORY = 0.5
"""What earlier trials count beside a new one: a machine may get other work to do."""


class Costs:
    """What trials take, in seconds.

    Args:
        start: From the start of a trial to the end of its first optimizer step.
        step: An optimizer step.
        validation: A validation, or a measurement of as many rows.
        steps: Optimizer steps of a whole run.
        validations: Validations of a whole run, and measurements of its adapter.
    """

    def __init__(
        self, start: float, step: float, validation: float, steps: int, validations: int
    ) -> None:
        self.start, self.step, self.validation = start, step, validation
        self.steps, self.validations = steps, validations
        self._measured = step, validation
        self._expected = self._actual = 0.0

    @property
    def run(self) -> float:
        """A whole training with the config's own settings, with its validations."""
        trained = max(0, self.steps - 1) * self.step
        return max(self.start + trained + self.validations * self.validation, 1e-3)

    def of_try(self, validations: float) -> float:
        """Return what a try takes that ends after so many validations."""
        share = validations / VALIDATIONS
        return self.start + share * self.steps * self.step + (validations + 1) * self.validation

    def learn(self, trial: Trial, start: float, steps: int) -> None:
        """Correct the costs by a trial that has ended; one that failed says nothing.

        Args:
            trial: The trial.
            start: Seconds to the end of its first step.
            steps: The steps that it did.
        """
        validations = len(trial.curve) + (trial.choose is not None) + (trial.report is not None)
        step, validation = self._measured
        expected = max(0, steps - 1) * step + validations * validation
        if trial.state == "failed" or not expected:
            return
        self._expected = MEMORY * self._expected + expected
        self._actual = MEMORY * self._actual + max(0.0, trial.seconds - start)
        pace = self._actual / self._expected
        self.start, self.step, self.validation = start, pace * step, pace * validation
        if trial.full_schedule and steps == self.steps:
            self.validations = validations
