"""Where the answers of a conversation begin and end among its tokens."""

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

from data.guard import Guard
from data.truncation import Span


def answer_spans(
    guard: Guard, texts: Sequence[str], tokens: Sequence[list[int]]
) -> tuple[list[int], list[Span]]:
    """Return the tokens of a conversation, and where each answer begins and must have ended.

    These are the tokens of the whole text, unless an answer begins with white space that would
    become one token with the template's before it. A model never meets such a token in chat, where
    it goes on after its prompt; so the text is then cut where answers begin and end.

    Args:
        guard: Wrote the tokens.
        texts: The whole conversation as the template writes it; then, for each answer that trains,
            its prompt, a beginning of the whole, and the conversation to its end. The last of
            these may be missing: it is the whole.
        tokens: Of each text.
    """
    whole, ids = texts[0], tokens[0]
    prompts = tokens[1::2]
    if all(ids[: len(prompt)] == prompt for prompt in prompts):
        ends = [*tokens[2::2], ids][: len(prompts)]
        return ids, [Span(len(a), len(b)) for a, b in zip(prompts, ends, strict=True)]
    starts = [len(text) for text in texts[1::2]]
    limits = [*starts[1:], len(whole)]
    stops = [
        len(text) if whole.startswith(text) and len(text) <= limit else limit
        for text, limit in zip([*texts[2::2], whole], limits, strict=False)
    ]
    cuts = sorted({0, *starts, *stops, len(whole)})
    pieces = [whole[a:b] for a, b in pairwise(cuts)]
    pieces_ids = guard.tokenize(pieces[:1]) + guard.tokenize(pieces[1:], continues=True)
    place = dict(zip(cuts, accumulate(map(len, pieces_ids), initial=0), strict=True))
    spans = [Span(place[a], place[b]) for a, b in zip(starts, stops, strict=True)]
    return list(chain(*pieces_ids)), spans
