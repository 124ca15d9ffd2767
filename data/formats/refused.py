"""Keys that change what a row or a turn means and that cannot be learned: a value is refused."""

from typing import Any

NOT_LEARNED = {
    **dict.fromkeys(("tool_calls", "tools", "functions", "function_call"), "calls of tools"),
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), "images and sound"),
}
"""Keys of rows and of turns, and what they hold."""
PREFERENCE = "pairs of a good and a bad answer are not learned; to learn one, name it in `columns`"
LABEL = "label"


def refusals(keys: tuple[str, ...]) -> dict[str, str]:
    """Return those of a row's keys that stop it if they have a value, each with the reason."""
    reasons = {key: f"{what} cannot be learned" for key, what in NOT_LEARNED.items()}
    reasons |= dict.fromkeys(("chosen", "rejected"), PREFERENCE)
    reasons[LABEL] = "false marks an answer that is not to be learned: remove such rows"
    reasons["weight"] = "only a weight of 1 can be honored; on a turn, also 0"
    return {key: reasons[key] for key in keys if key in reasons}


def is_harmless(key: str, value: Any) -> bool:
    """Return whether a value of a refused key changes nothing."""
    if key == LABEL:
        return value is not False and str(value).casefold() != "false"
    return key == "weight" and str(value) in ("1", "1.0")
