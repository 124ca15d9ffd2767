"""Keys that change what a row or a turn means and that cannot be learned: a value is refused."""

from typing import Any

from data.messages import tr_mark

CALLS, MEDIA = (
    tr_mark("calls of tools cannot be learned"),
    tr_mark("images and sound cannot be learned"),
)
NOT_LEARNED = {
    **dict.fromkeys(("tool_calls", "tools", "functions", "function_call"), CALLS),
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), MEDIA),
}
"""Keys of rows and of turns, with the reason why a value stops them."""
PREFERENCE = tr_mark(
    "pairs of a good and a bad answer are not learned; to learn one, name it in `columns`"
)
LABEL = "label"


def refusals(keys: tuple[str, ...]) -> dict[str, str]:
    """Return the keys of a row that stop it if they have a value, with the reason for ``tr``."""
    reasons = NOT_LEARNED | dict.fromkeys(("chosen", "rejected"), PREFERENCE)
    reasons[LABEL] = tr_mark("false marks an answer that is not to be learned: remove such rows")
    reasons["weight"] = tr_mark("only a weight of 1 can be honored; on a turn, also 0")
    return {key: reasons[key] for key in keys if key in reasons}


def is_harmless(key: str, value: Any) -> bool:
    """Return whether a value of a refused key changes nothing."""
    if key == LABEL:
        return value is not False and str(value).casefold() != "false"
    return key == "weight" and str(value) in ("1", "1.0")
