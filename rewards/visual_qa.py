"""VQA accuracy (Antol et al., arXiv 1505.00468), as the official evaluation computes it."""

from __future__ import annotations

import re
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import as_text, golds, tagged

_MAX_CHARACTERS = 1000
_TO_TEN = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER_WORDS = {word: str(n) for n, word in enumerate(_TO_TEN)}
_NUMBER_WORDS["none"] = "0"
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`?!'
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")


@blames_reference
def vqa_accuracy(answer: str, gold: Any) -> float | None:
    """Mean over annotators of min(1, matches among the other annotators / 3), in [0, 1]; None without references.

    Line breaks, punctuation, articles, number words and the apostrophes of contractions do not count. A single
    reference has no other annotators and is simply compared.
    """
    wanted = [_normal(text) for text in golds(gold)]
    if not wanted:
        return None
    found = _normal(tagged(as_text(answer)))
    matches = sum(found == text for text in wanted)
    if len(wanted) == 1:
        return float(matches)
    return sum(min(1.0, (matches - (found == text)) / 3) for text in wanted) / len(wanted)


def _normal(text: str) -> str:
    text = text[:_MAX_CHARACTERS].replace("\n", " ").replace("\t", " ").strip().replace("'", "").replace("’", "")
    text = _COMMA_IN_NUMBER.sub("", text)
    for sign in _PUNCTUATION:
        text = text.replace(sign, "" if f"{sign} " in f"{text} " or f" {sign}" in f" {text}" else " ")
    words = _PERIOD.sub("", text.replace(",", " ")).lower().split()
    return " ".join(_NUMBER_WORDS.get(word, word) for word in words if word not in _ARTICLES)
