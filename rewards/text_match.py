"""Text match: the same words, whatever their case, articles and punctuation."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import MAX_CHARACTERS, announced, as_text, golds, tagged

_TAG = re.compile(r"</?[A-Za-z]{1,16}>|<br\s?/?>")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|boxed)\s?\{([^{}]{0,4000})\}")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3}){1,6}(?![\d,])")
_BLANK_BEFORE_PERCENT = re.compile(r"(?<=\d)\s%")
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
# A point or comma inside a number, a minus in front of one and the sign behind a letter (C#) carry meaning.
_MEANT = re.compile(r"(?<=\d)[.,:/-](?=\d)|(?<![\w)])-(?=[\d.])|(?<!\d)\.(?=\d)|(?<=\w)#|%")
_QUOTES: Mapping[int, None] = {ord(sign): None for sign in "'’‘`"}


@blames_reference
def text_match(answer: str, gold: Any) -> float | None:
    """1 if the answer has the words of the reference, else 0; None for a reference without content.

    Case, articles, punctuation, tags and Markdown do not count; signs inside numbers do. The answer is what a tag, a
    box or the last announcement (`Answer: ...`) marks, or the whole text behind the thought.
    """
    wanted = {normal(text) for text in golds(gold)} - {""}
    if not wanted:
        return None
    whole = tagged(as_text(answer))
    found = announced(whole)
    if found is not None and normal(found) in wanted:
        return 1.0
    # `The answer is 42` may itself be the reference, so an announcement does not hide the whole.
    return float(normal(whole) in wanted)


def normal(text: str) -> str:
    """The words of a text in lower case, one blank apart, without articles and punctuation that means nothing."""
    text = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]).casefold()
    text = _BLANK_BEFORE_PERCENT.sub("%", text)
    text = _WRAPPER.sub(r"\1", _TAG.sub(" ", text))
    text = _THOUSANDS.sub(lambda found: found.group().replace(",", ""), text).translate(_QUOTES)
    kept = {found.start() for found in _MEANT.finditer(text)}
    spelled = "".join(sign if i in kept or not _is_punctuation(sign) else " " for i, sign in enumerate(text))
    words = " ".join(spelled.split())
    # Of `A`, or of a lone sign, something must remain to compare.
    return " ".join(_ARTICLE.sub(" ", words).split()) or words or " ".join(text.split())


def _is_punctuation(sign: str) -> bool:
    return unicodedata.category(sign).startswith("P") or sign in "$^`|~"
