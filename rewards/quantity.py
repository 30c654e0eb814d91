"""Numbers and quantities read from text by a small parser: arithmetic, pi, roots and units; nothing is evaluated."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from rewards.unit_registry import convert, unit

MAX_CHARACTERS = 200
_MAX_DEPTH = 20
_MAX_EXPONENT = 400
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d{1,3}(?:,\d{3}){1,6}(?!\d)|\d{1,60})(?:\.\d{0,60})?(?:[eE][-+]?\d{1,3}(?![A-Za-z\d]))?"
    r"|\.\d{1,60}(?:[eE][-+]?\d{1,3}(?![A-Za-z\d]))?)|(?P<name>[A-Za-zµμΩÅ°℃℉]{1,32})|(?P<sign>[-+*/^()%]))"
)
_CONSTANTS = {"pi": math.pi, "π": math.pi}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_REWRITTEN = (
    (re.compile(r"\\[dt]?frac\s?\{([^{}]{1,80})\}\s?\{([^{}]{1,80})\}"), r"((\1)/(\2))"),
    (re.compile(r"\\sqrt\s?\{([^{}]{1,80})\}"), r"sqrt(\1)"),
    (re.compile(r"\\(?:text|mathrm|mathbf|operatorname|unit|si)\s?\{([^{}]{0,80})\}"), r" \1 "),
    (re.compile(r"\^\s?\{([^{}]{1,40})\}"), r"^(\1)"),
    (re.compile(r"\\(?:times|cdot)(?![A-Za-z])|[×·⋅∙]"), "*"),
    (re.compile(r"\\(?:pi)(?![A-Za-z])|%pi\b"), "pi"),
    (re.compile(r"\\(?:,|;|!|:| |quad|left|right)|\$"), " "),
    (re.compile(r"\^?\\circ\s?(?=[CF]\b)|º"), "°"),
    (re.compile(r"\bdeg(?:rees?)?\s+(?=(?:celsius|fahrenheit)\b)", re.IGNORECASE), ""),
    (re.compile(r"(?<![\d.,])(\d{1,3})[ \u00a0\u2009\u202f](?=(?:\d{3}[ \u00a0\u2009\u202f]){0,5}\d{3}(?!\d))"), r"\1"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<=\d)\s?x\s?(?=10\s?\^)"), "*"),
    (re.compile(r"([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]{1,6})"), r"^(\1)"),
    (re.compile(r"\b(?:square|sq)\.?\s([A-Za-z]{1,24})", re.IGNORECASE), r"\1^2"),
    (re.compile(r"\b(?:cubic|cu)\.?\s([A-Za-z]{1,24})", re.IGNORECASE), r"\1^3"),
    (re.compile(r"\sper\s", re.IGNORECASE), "/"),
)
# What may stand in front of a number without changing it.
_HEDGE = re.compile(
    r"\s*(?:(?:about|approximately|approx\.?|roughly|around|circa|nearly|\\approx|\\sim|[~≈≃=])\s*|[A-Za-z]\w{0,8}\s*(?:=|≈|\\approx)\s*)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A value and its pint unit; None for a bare number."""

    value: float
    unit: Any = None


def read_quantity(text: str, *, units: bool) -> Quantity | None:
    """The number or quantity that a text is, or None. `units` decides whether names of units are read.

    Reads thousands separators, LaTeX's fractions and roots, pi, powers and products of units; hedges (`about`, `~`)
    and `x =` in front are dropped. Text that holds anything else is not read at all.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    text = plain(text)
    for _ in range(3):
        text = _HEDGE.sub("", text, count=1) if _HEDGE.match(text) else text
    tokens = _tokens(text.strip().rstrip(".").strip())
    if not tokens:
        return None
    try:
        parser = _Parser(tokens, units)
        read = parser.sum(0)
    except (_Unreadable, ArithmeticError, ValueError):
        return None
    if parser.position < len(tokens) or not math.isfinite(read.value):
        return None
    return read


def plain(text: str) -> str:
    """LaTeX and Unicode spellings of arithmetic as plain signs."""
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return text.translate(_SUPERSCRIPTS).replace("−", "-").replace("–", "-")


class _Unreadable(Exception):
    """The text is no quantity."""


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, position = [], 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return []
        tokens.append((str(match.lastgroup), match.group().strip()))
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent over tokens; every level of brackets is counted."""

    def __init__(self, tokens: list[tuple[str, str]], units: bool) -> None:
        self.tokens = tokens
        self.units = units
        self.position = 0

    def sum(self, depth: int) -> Quantity:
        total = self.product(depth)
        while True:
            kind, token = self._peek()
            if token in ("+", "-"):
                self.position += 1
                sign = -1.0 if token == "-" else 1.0
            elif kind == "number" and total.unit is not None:
                sign = 1.0  # 5 ft 3 in
            else:
                return total
            total = _add(total, self.product(depth), sign)

    def product(self, depth: int) -> Quantity:
        total = self.power(depth)
        while True:
            kind, token = self._peek()
            if token in ("*", "/"):
                self.position += 1
                total = _multiply(total, self.power(depth), -1 if token == "/" else 1)
            elif kind == "name" or token == "(":
                total = _multiply(total, self.power(depth), 1)
            else:
                return total

    def power(self, depth: int) -> Quantity:
        if depth > _MAX_DEPTH:
            raise _Unreadable
        _, token = self._peek()
        if token in ("+", "-"):
            self.position += 1
            inner = self.power(depth + 1)
            return Quantity(-inner.value if token == "-" else inner.value, inner.unit)
        base = self.atom(depth)
        if self._peek()[1] == "%":
            if self.units and base.unit is not None:
                raise _Unreadable
            self.position += 1
            base = Quantity(base.value / 100, base.unit)
        if self._peek()[1] != "^":
            return base
        self.position += 1
        exponent = self.power(depth + 1)
        if exponent.unit is not None or abs(exponent.value) > _MAX_EXPONENT:
            raise _Unreadable
        if base.unit is not None and abs(exponent.value) > 12:
            raise _Unreadable
        value = base.value**exponent.value
        if isinstance(value, complex):
            raise _Unreadable
        return Quantity(value, None if base.unit is None else base.unit**exponent.value)

    def atom(self, depth: int) -> Quantity:
        kind, token = self._peek()
        self.position += 1
        if kind == "number":
            return Quantity(float(token.replace(",", "")))
        if token == "(":
            inner = self.sum(depth + 1)
            if self._peek()[1] != ")":
                raise _Unreadable
            self.position += 1
            return inner
        if kind == "name":
            return self._named(token, depth)
        raise _Unreadable

    def _named(self, name: str, depth: int) -> Quantity:
        if name in _CONSTANTS:
            return Quantity(_CONSTANTS[name])
        if name == "sqrt" and self._peek()[1] == "(":
            inner = self.atom(depth + 1)
            if inner.unit is not None:
                raise _Unreadable
            return Quantity(math.sqrt(inner.value))
        if name == "e" and not self.units:
            return Quantity(math.e)
        found = unit(name) if self.units else None
        if found is None:
            raise _Unreadable
        return Quantity(1.0, found)

    def _peek(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")


def _multiply(a: Quantity, b: Quantity, power: int) -> Quantity:
    value = a.value * b.value**power
    if b.unit is None:
        return Quantity(value, a.unit)
    factor = b.unit**power
    return Quantity(value, factor if a.unit is None else a.unit * factor)


def _add(a: Quantity, b: Quantity, sign: float) -> Quantity:
    if a.unit is None and b.unit is None:
        return Quantity(a.value + sign * b.value)
    other = convert(b.value, b.unit, a.unit) if a.unit is not None and b.unit is not None else None
    if other is None:
        raise _Unreadable
    return Quantity(a.value + sign * other, a.unit)
