"""Quantities whose number may be spelled out: `forty-two centimetres` is `42 cm`."""

from __future__ import annotations

import re
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference, warmed_by
from rewards.answer_span import as_text
from rewards.numeric import numeric, warm_up

_MAX_CHARACTERS = 200
_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_SMALL = tuple(_UNITS.split())
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: value for value, word in enumerate(_SMALL)}
_VALUES |= {word: 10 * place for place, word in enumerate(_TENS, start=2)}
_BELOW_HUNDRED = rf"(?:(?:{'|'.join(_TENS)})(?:[\s-](?:{'|'.join(_SMALL[1:10])}))?|{'|'.join(reversed(_SMALL))})"
_NUMBER = re.compile(
    rf"\b(?:({'|'.join(_SMALL[1:10])}|a)\shundred(?:\sand)?(?:\s({_BELOW_HUNDRED}))?|({_BELOW_HUNDRED}))\b",
    re.IGNORECASE,
)


@warmed_by(warm_up)
@blames_reference
def spelled_quantity(answer: str, gold: Any) -> float | None:
    """1 if both are the same quantity, in any unit of its kind, its number in digits or in English words up to 999.

    As `numeric` with `units`; None where the reference is no quantity.
    """
    return numeric(in_digits(as_text(answer)), in_digits(as_text(gold)), units=True)


def in_digits(text: str) -> str:
    """The text with numbers from zero to nine hundred and ninety-nine in digits; a long text as it is."""
    return _NUMBER.sub(_value, text) if len(text) <= _MAX_CHARACTERS else text


def _value(match: re.Match[str]) -> str:
    hundreds, rest, alone = (group.lower() if group else "" for group in match.groups())
    value = 100 * (1 if hundreds == "a" else _VALUES[hundreds]) if hundreds else 0
    return str(value + sum(_VALUES[word] for word in re.split(r"[\s-]", rest or alone) if word))
