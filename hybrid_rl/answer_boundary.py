"""Where the final answer begins among sampled ids.

Text is not encoded again: other ids than the sampled ones would have other probabilities. A closing tag may be one
token or several pieces, and a tokenizer may join its last piece with the blanks behind it, so the boundary is looked
for in what the first n ids decode to, by bisection.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]


def answer_start(ids: Sequence[int], decode: Decode, tags: tuple[str, str], *, thinking: bool) -> int | None:
    """The number of ids before the final answer: the thought, its closing tag and the blanks behind the tag.

    Blanks that share a token with the answer belong to the answer. An empty answer begins behind the last id.

    Args:
        ids: of a response, without a stop token.
        tags: opening and closing tag of a thought.
        thinking: the response begins inside a thought.

    Returns:
        None where the last thought is not closed, or where one token ends the tag and begins the answer. 0 without a
        thought.
    """
    opened, closed = tags
    text = decode(ids)
    place = text.rfind(closed)
    if place < 0 or text.rfind(opened) > place:
        return None if thinking or opened in text else 0
    end = place + len(closed)

    def has_tag(count: int) -> bool:
        return decode(ids[:count]).startswith(text[:end])

    def has_answer(count: int) -> bool:
        return bool(decode(ids[:count])[end:].strip())

    counts = range(len(ids) + 1)
    behind_tag = bisect_left(counts, True, key=has_tag)
    # The first count with some of the answer includes its first token; without any it is len(ids) + 1.
    start = bisect_left(counts, True, lo=behind_tag, key=has_answer) - 1
    return start if start >= behind_tag else None
