"""Settings, differences and times as they are shown."""

from collections.abc import Mapping
from typing import Any

from lit.measures.differences import Difference
from lit.messages import tr
from lit.searching.records import Trial


def short_name(name: str) -> str:
    """Return the last part of a dotted name."""
    return name.rpartition(".")[2]


def value_text(value: Any) -> str:
    """Return the value of a setting."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return " + ".join(map(value_text, value))
    return str(value)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings by the last parts of their names: lr 0.0002, r 8."""
    return ", ".join(f"{short_name(name)} {value_text(x)}" for name, x in settings.items())


def difference_text(difference: Difference | None) -> str:
    """Return a difference with its interval."""
    if difference is None:
        return "–"
    if difference.low is None or difference.high is None:
        return f"{difference.value:+.4f}"
    return f"{difference.value:+.4f} ({difference.low:+.4f} … {difference.high:+.4f})"


def loss_text(loss: float | None) -> str:
    """Return a loss, in nats per label."""
    return "–" if loss is None else f"{loss:.4f}"


def time_text(seconds: float) -> str:
    """Return a time in hours, minutes or seconds."""
    if seconds >= 3600:
        return tr("{hours:.1f} h", hours=seconds / 3600)
    if seconds >= 60:
        return tr("{minutes:.1f} min", minutes=seconds / 60)
    return tr("{seconds:.0f} s", seconds=seconds)


def state_text(trial: Trial) -> str:
    """Return how a trial ended, with the reason."""
    state = {
        "finished": tr("finished"),
        "stopped early": tr("stopped early"),
        "failed": tr("failed"),
    }[trial.state]
    return tr("{state}: {reason}", state=state, reason=trial.reason) if trial.reason else state
