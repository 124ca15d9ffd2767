"""What a model thinks before it answers, as templates write it: ``<think>…</think>``."""

import re
from collections.abc import Mapping

OPEN, CLOSE = "<think>", "</think>"
OPENED = re.compile(rf"{OPEN}\s*({CLOSE}\s*)?\Z")
"""The end of a prompt that opens a thought, or that has an empty one."""


def split_thought(text: str) -> tuple[str, str]:
    """Return what an answer holds up to the end of its thought, without tags, and the rest."""
    thought, _, answer = text.rpartition(CLOSE)
    return thought.strip().removeprefix(OPEN).strip(), answer


def answer_start(prompt: str) -> int:
    """Return where an answer begins after a prompt: before the thought that the prompt opens."""
    opened = OPENED.search(prompt)
    return opened.start() if opened else len(prompt)


def continued(prompt: str, written: str, turn: Mapping[str, str]) -> str | None:
    """Return a conversation up to an answer's end such that it begins with the answer's prompt.

    Templates whose prompt opens a thought may write the answer itself without one, even if the row
    has one, or with other white space. The model goes on after its prompt, so it must learn to
    close the thought: what the template leaves out is written here.

    Args:
        prompt: What the template writes before the answer when it asks for one.
        written: What it writes of the conversation with the answer.
        turn: The answer, as the template takes it.

    Returns:
        None where the two do not belong together.
    """
    if written.startswith(prompt):
        return written
    opened = OPENED.search(prompt)
    if opened is None or not written.startswith(prompt[: opened.start()]):
        return None
    answer = written[opened.start() :]
    if answer.lstrip().startswith(OPEN):
        # The same thought with other white space.
        inside = answer.lstrip().removeprefix(OPEN).lstrip("\n")
        if not opened[1]:
            return prompt + inside
        thought, closing, rest = inside.partition(CLOSE)
        return prompt + rest.lstrip("\n") if closing and not thought.strip() else None
    if opened[1] or CLOSE in answer:
        return prompt + answer
    thought = turn.get("thinking") or split_thought(turn["content"])[0]
    closing = f"{thought}\n{CLOSE}\n\n" if thought else f"\n{CLOSE}\n\n"
    return prompt + closing + answer.lstrip("\n")
