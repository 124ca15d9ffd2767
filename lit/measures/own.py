"""A person's own measure: a function of a local Python file."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lit.messages import tr
from lora.config import ConfigError

Function = Callable[[str, str, str], float]


class OwnMetric(NamedTuple):
    """A function of question, reference and answer; higher is better."""

    name: str
    function: Function

    def score(self, question: str, reference: str, answer: str) -> float:
        """Return its value for an answer.

        Raises:
            ConfigError: It raises an exception, or its value is no finite number.
        """
        try:
            value = self.function(question, reference, answer)
        except Exception as error:
            raise ConfigError(
                tr(
                    "--metric {name} raised {type}: {error}, for the question {question!r}",
                    name=self.name,
                    type=type(error).__name__,
                    error=error,
                    question=question[:80],
                )
            ) from error
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ConfigError(
                tr(
                    "--metric {name} returned {value!r} for the question {question!r}; it must "
                    "return a finite number",
                    name=self.name,
                    value=value,
                    question=question[:80],
                )
            )
        return float(value)


def load_metric(name: str) -> OwnMetric:
    """Load ``FILE.py:function``; this runs the file, as importing it would.

    Raises:
        ConfigError: There is no such file or function, or the file raises an exception.
    """
    file, colon, function = name.rpartition(":")
    path = Path(file)
    if not colon or path.suffix != ".py" or not function.isidentifier():
        raise ConfigError(tr("--metric is {name}; write it as FILE.py:function", name=name))
    if not path.is_file():
        raise ConfigError(tr("--metric {name}: {path} does not exist", name=name, path=path))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            tr(
                "--metric {name}: {type}: {error}",
                name=name,
                type=type(error).__name__,
                error=error,
            )
        ) from error
    found = getattr(module, function, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        has = ", ".join(names) or "none"
        raise ConfigError(
            tr(
                "--metric {name}: {path} has no function {function}; it has {has}",
                name=name,
                path=path,
                function=function,
                has=has,
            )
        )
    return OwnMetric(f"{path.name}:{function}", found)
