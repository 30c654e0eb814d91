"""Counts: the one whole number that an answer names."""

from __future__ import annotations

import re
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import DENIED, FULL_WIDTH, announced, as_text, tagged

_NUMBER = re.compile(r"(?<![\w.,])[-+]?\d[\d,.]{0,30}(?!\w)", re.ASCII)
_WHOLE = re.compile(r"[-+]?(?:\d{1,15}|\d{1,3}(?:,\d{3}){1,4})(?:\.0{1,6})?", re.ASCII)
_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
]
_WORD = re.compile(r"\b(?:" + "|".join(_WORDS) + r"|none)\b", re.IGNORECASE)
_FORMULA = re.compile(r"[<>=^%\\]")  # a reference that holds more than a count
_MAX_CHARACTERS = 4000


@blames_reference
def count(answer: str, gold: Any) -> float | None:
    """1 if the answer names the count of the reference and no other number, else 0; None for an unreadable reference.

    A count that is announced (`Answer: 3`) may stand beside other numbers. Number words up to sixteen count where the
    answer has no digits.
    """
    wanted = None if _FORMULA.search(as_text(gold)) else read_count(as_text(gold))
    return None if wanted is None else float(read_count(as_text(answer)) == wanted)


def read_count(text: str) -> int | None:
    """The single whole number in a text, or None for none, several, or one that is not whole."""
    whole = tagged(text).translate(FULL_WIDTH)
    for candidate in (announced(whole), whole):
        if candidate is None or len(candidate) > _MAX_CHARACTERS:
            continue
        found_numbers = list(_NUMBER.finditer(candidate))
        numbers = {n.group().rstrip(".,") for n in found_numbers if not DENIED.search(candidate[: n.start()][-40:])}
        if found_numbers and not numbers:
            return None
        if not numbers:
            words = {word.lower() for word in _WORD.findall(candidate)}
            # `one` is also a pronoun, so beside another number word it says nothing.
            words = words - {"one"} if len(words) > 1 else words
            numbers = {str(_WORDS.index(word)) if word != "none" else "0" for word in words}
        values = {
            int(number.split(".")[0].replace(",", "")) if _WHOLE.fullmatch(number) else None for number in numbers
        }
        if len(values) == 1:
            return values.pop()
    return None
