"""The text of an answer while its tokens come: whole characters, up to a stop text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class AnswerText:
    """Turns tokens into text, and holds back what a later token may change or cut off.

    Args:
        tokenizer: Only one thread may use it.
        stops: Texts before which the answer ends.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        self.tokenizer, self.stops = tokenizer, stops
        self.ids: list[int] = []
        self.shown = ""
        """The text that is certain."""
        self.stopped = False
        """Whether a stop text has come."""

    def add(self, token: int) -> None:
        """Add a token; ``shown`` grows by what is certain."""
        self.ids.append(token)
        text = self._decoded()
        if (end := self._first_stop(text)) is not None:
            self.stopped = True
            self._show(text[:end])
            return
        # An incomplete character is decoded as U+FFFD.
        text = text.rstrip("\ufffd")
        held = max((_overlap(text, stop) for stop in self.stops), default=0)
        self._show(text[: len(text) - held])

    def finish(self) -> None:
        """Show what was held back, at the end of an answer that no stop text ended."""
        if not self.stopped:
            self._show(self._decoded())

    def _decoded(self) -> str:
        return str(
            self.tokenizer.decode(
                self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def _first_stop(self, text: str) -> int | None:
        return min((i for stop in self.stops if (i := text.find(stop)) >= 0), default=None)

    def _show(self, text: str) -> None:
        # A few decoders change earlier text, such as a space before a mark: then wait for more.
        if text.startswith(self.shown):
            self.shown = text


def _overlap(text: str, stop: str) -> int:
    """Return how many letters at the end of a text begin a stop text."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
