"""Numbers as people write them, read exactly: separators, scientific notation, repeating decimals."""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.math_reading.limits import MAX_DIGITS, Unreadable
from rewards.math_reading.tree import Num

_EXPONENT = r"(?:[eE](?P<exp>[+-]?\d{1,4})(?!\d))?"
# Tried in this order; each gives the digits before and after the decimal point.
_EUROPEAN = re.compile(
    r"(?P<int>\d{1,3}(?:\.\d{3})+),(?P<dec>\d+)(?![\d,])|(?P<int2>\d{4,}),(?P<dec2>\d{1,2})(?![\d,])"
)
_EUROPEAN_MANY = re.compile(r"(?P<int>\d{1,3}(?:\.\d{3}){2,})(?P<dec>)(?![\d.])")
_ZERO_COMMA = re.compile(r"(?P<int>0),(?P<dec>\d+)(?![\d,])")
_GROUPED = re.compile(
    r"(?P<int>[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d?(?:,\d{2})+,\d{3})(?![\d]|,\d)(?:\.(?P<dec>\d*))?" + _EXPONENT, re.ASCII
)
_SPACED = re.compile(
    r"(?P<int>[1-9]\d{0,2}(?:(?:'\d{3})+|(?: \d{3})+|(?:_\d{3})+))(?!\d| \d)(?:\.(?P<dec>\d*))?" + _EXPONENT, re.ASCII
)
_PLAIN = re.compile(
    r"(?P<int>\d+)(?:\.(?P<dec>\d*))?" + _EXPONENT + r"|\.(?P<only>\d+)(?:[eE](?P<exp2>[+-]?\d{1,4})(?!\d))?", re.ASCII
)
_REPEATING = re.compile(r"\s*(?:\\overline|\\bar|\\dot)\s*\{?\s*(?P<rep>\d+)\s*\}?")


def number_at(text: str, at: int, *, commas: bool) -> tuple[Num, int] | None:
    """The unsigned number that starts at `at`, and where it ends. With `commas`, a comma may belong to the number."""
    forms = (_EUROPEAN, _EUROPEAN_MANY, _GROUPED, _ZERO_COMMA, _SPACED, _PLAIN) if commas else (_SPACED, _PLAIN)
    for form in forms:
        match = form.match(text, at)
        if match:
            return _value(match.groupdict(), text, match.end())
    return None


def _value(found: dict[str, str | None], text: str, end: int) -> tuple[Num, int]:
    whole = re.sub(r"\D", "", found.get("int") or found.get("int2") or "0")
    decimals = found.get("dec") or found.get("dec2") or found.get("only")
    exponent = int(found.get("exp") or found.get("exp2") or 0)
    if len(whole) + len(decimals or "") > MAX_DIGITS:
        raise Unreadable("a number of too many digits")
    value = Fraction(int(whole + (decimals or "")), 10 ** len(decimals or ""))
    if "." in text[:end] and (repeating := _REPEATING.match(text, end)) and text[end - 1] in ".0123456789":
        digits, shift = repeating["rep"], len(decimals or "")
        value += Fraction(int(digits), (10 ** len(digits) - 1) * 10**shift)
        return Num(value), repeating.end()
    places = None if not decimals and exponent >= 0 else max(0, len(decimals or "") - exponent)
    return Num(value * Fraction(10) ** exponent, places), end


_SIGNED = re.compile(r"\s*([+-]?)\s*(.*?)\s*", re.ASCII | re.DOTALL)
_FRACTION = re.compile(r"(\d+)\s*/\s*(\d+)|\\[dtc]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}", re.ASCII)


def simple_number(text: str) -> Num | None:
    """A whole text that is a number or a fraction of two integers; the cheap way, without a reader."""
    match = _SIGNED.fullmatch(text) if len(text) <= MAX_DIGITS else None
    if not match or not match[2]:
        return None
    fraction = _FRACTION.fullmatch(match[2])
    if fraction:
        above, below = int(fraction[1] or fraction[3]), int(fraction[2] or fraction[4])
        if not below:
            return None
        number = Num(Fraction(above, below))
    else:
        found = number_at(match[2], 0, commas=True)
        if not found or found[1] != len(match[2]):
            return None
        number = found[0]
    return Num(-number.value, number.places) if match[1] == "-" else number


def same_number(a: Num, b: Num) -> bool:
    """Equal, or one is the other rounded: a decimal of at least six significant digits after the point.

    An integer and a fraction that ends (1/8) have no need of rounding and are compared exactly.
    """
    return a.value == b.value or rounds_to(a, b) or rounds_to(b, a)


def rounds_to(decimal: Num, other: Num) -> bool:
    """Whether `decimal` is `other` cut or rounded at its last digit."""
    if not is_rounded(decimal):
        return False
    if other.places is None and _ends(other.value):
        return False
    if other.places is not None and (other.places <= (decimal.places or 0) or not is_rounded(other)):
        return False
    return abs(decimal.value - other.value) * 10 ** (decimal.places or 0) < 1


def is_rounded(number: Num) -> bool:
    """Whether it has digits enough to stand for a value that it does not equal."""
    places = number.places or 0
    return 6 <= places <= 400 and abs(number.value) * 10**places >= 10**5


def _ends(value: Fraction) -> bool:
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1
