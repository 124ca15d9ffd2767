"""Special tokens inside of texts are text: they are marked before a template writes them."""

import re
from collections.abc import Mapping, Sequence

from transformers import PreTrainedTokenizerBase

from data.templates.thoughts import CLOSE, OPEN
from data.types import Message

START, END = "\ufdd0", "\ufdd1"
"""Noncharacters of Unicode: no text has them, and no template writes them."""
MARKS = re.compile(f"[{START}{END}]")


class Guard:
    """Tokenizes what a template wrote, with marked special tokens as ordinary text.

    Only special tokens are guarded. Another added token, such as ``<think>`` or one of the user's
    own, is what a chat and every other tool make of it too; the tags of thoughts always are.

    Args:
        tokenizer: A tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        names = {token.content for token in added.values() if token.special} - {OPEN, CLOSE}
        # The longest first: it has priority over the tokens that it contains.
        longest = sorted((name for name in names if not name.isspace()), key=len, reverse=True)
        any_name = "|".join(map(re.escape, longest)) or "(?!)"
        self.special = re.compile(any_name)
        self.marked = re.compile(f"{START}({any_name}){END}")
        self.newline = self._encode("\n")

    def mark(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """Return the turns as a template takes them, with marks around special tokens."""
        turns = []
        for message in messages:
            turn = {"role": message.role}
            for name, text in _texts(message).items():
                turn[name] = self.special.sub(f"{START}\\g<0>{END}", MARKS.sub("", text))
            turns.append(turn)
        return turns

    def tokenize(self, texts: Sequence[str], continues: bool = False) -> list[list[int]]:
        """Return the tokens of texts with marks.

        Args:
            texts: What a template wrote.
            continues: Whether each text continues another one, which is not the case for a whole
                conversation: some tokenizers begin a text with a space of their own.
        """
        plain = [START not in text for text in texts]
        if not continues and all(plain):
            # One call for all texts: the overhead of a call equals the work on one text.
            return self._encode_all(texts)
        return [
            self._encode_marked(text, continues) if not whole or continues else self._encode(text)
            for text, whole in zip(texts, plain, strict=True)
        ]

    def unmarked(self, text: str) -> str:
        """Return a text without marks."""
        return MARKS.sub("", text)

    def stop_in(self, text: str) -> int | None:
        """Return where the first special token of the template's own in a text begins."""
        blind = self.marked.sub(lambda match: "\0" * len(match[0]), text)
        found = self.special.search(blind)
        return found.start() if found else None

    def _encode_marked(self, text: str, continues: bool) -> list[int]:
        ids: list[int] = []
        # Texts at even places, marked tokens at odd ones.
        for place, piece in enumerate(self.marked.split(text)):
            piece = self.unmarked(piece)
            if piece:
                follows = continues or bool(ids)
                ids += self._encode_piece(piece, as_text=place % 2 == 1, follows=follows)
        return ids

    def _encode_piece(self, piece: str, as_text: bool, follows: bool) -> list[int]:
        if follows:
            # After a newline, a tokenizer does not add the space that begins a text.
            ids = self._encode("\n" + piece, as_text)
            if ids[: len(self.newline)] == self.newline:
                return ids[len(self.newline) :]
        return self._encode(piece, as_text)

    def _encode(self, text: str, as_text: bool = False) -> list[int]:
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=as_text)
        return ids["input_ids"]

    def _encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        if not self.tokenizer.is_fast:
            return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        core = self.tokenizer.backend_tokenizer
        core.encode_special_tokens = False
        # The same tokens, without the character offsets that a normal call computes.
        return [x.ids for x in core.encode_batch_fast(list(texts), add_special_tokens=False)]


def _texts(message: Message) -> Mapping[str, str]:
    """Return the texts of a turn by the names that templates know them by."""
    texts = {"content": message.content}
    if message.reasoning_content:
        texts |= dict.fromkeys(("reasoning_content", "thinking"), message.reasoning_content)
    return texts
