"""Numbers and quantities within tolerances."""

from __future__ import annotations

import math
import re
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import announced, answer_span, as_text, tagged
from rewards.quantity import MAX_CHARACTERS, Quantity, read_quantity
from rewards.unit_registry import convert, registry

_CURRENCY = re.compile(r"^(\s*-?)\s*([$€£¥])\s*(?=[\d.])|(?<=\d)\s*([$€£¥])\s*$")
# Two tolerances that are equal on paper must be equal here: 1.05 lies within 5 % of 1.
_ROUNDING = 1e-12
_MAX_VALUES = 100
_ASSERTS = re.compile(r"\b(?:is|are|equals|was)\b|(?<![!<>])=|≈")

Values = tuple[str, list[float]]


@blames_reference
def numeric(
    answer: str,
    gold: Any,
    rtol: float | None = None,
    atol: float | str | None = None,
    units: bool = False,
    require_unit: bool = True,
    same_unit: bool = False,
) -> float | None:
    """1 where |answer - gold| <= atol + rtol * |gold|, else 0.

    Args:
        answer: a number, a list `[1, 2]`, a set `{1, 2}` (any order), or a quantity; arithmetic and pi are read.
            Several numbers where one is wanted are wrong.
        gold: the same; None is returned where it cannot be read or is not finite.
        rtol: relative tolerance; alone it never lets a number pass for one of the other sign.
        atol: absolute tolerance, in the reference's unit unless it names its own (`"1 cm"`).
        units: read units. The answer is converted to the reference's unit; another kind of quantity is wrong.
        require_unit: with units, whether an answer without one is wrong. An answer with a unit that the reference lacks
            always is.
        same_unit: with units, whether another unit of the same kind is wrong.
        Without any tolerance `rtol` is 1e-6.
    """
    if rtol is None and atol is None:
        rtol = 1e-6
    if units:
        return _quantity(answer, as_text(gold), rtol or 0.0, atol or 0.0, require_unit, same_unit)
    wanted = _values(as_text(gold))
    if wanted is None or isinstance(atol, str):
        return None
    found = _first_read(answer, _values)
    if (
        found is None
        or len(found[1]) != len(wanted[1])
        or (found[0] != wanted[0] and "bare" not in (found[0], wanted[0]))
    ):
        return 0.0
    if "one" in (found[0], wanted[0]) and found[0] != wanted[0]:
        return 0.0
    pairs = [found[1], wanted[1]] if wanted[0] != "set" else [sorted(found[1]), sorted(wanted[1])]
    return float(all(_near(a, b, rtol or 0.0, atol or 0.0) for a, b in zip(*pairs, strict=True)))


def _near(answer: float, gold: float, rtol: float, atol: float) -> bool:
    if atol == 0 and answer * gold < 0:
        return False
    return abs(answer - gold) <= atol + rtol * abs(gold) + _ROUNDING * max(abs(answer), abs(gold))


def _first_read(answer: str, reader: Any) -> Any:
    """What the reader makes of the marked span, else of the whole, else of what stands behind its last `is` or `=`."""
    text = as_text(answer)
    whole = tagged(text)
    tail = _ASSERTS.split(whole[-MAX_CHARACTERS:])[-1]
    for candidate in (answer_span(text), announced(whole), whole, tail):
        read = reader(candidate) if candidate is not None else None
        if read is not None:
            return read
    return None


def _values(text: str) -> Values | None:
    """The numbers of a text with the kind of their container: one, list, set, or bare (commas only)."""
    if len(text) > 10 * MAX_CHARACTERS:
        return None
    text = text.strip()
    text = text.replace(r"\{", "{").replace(r"\}", "}").replace(r"\left", "").replace(r"\right", "")
    one = _number(text)
    if one is not None:
        return "one", [one]
    if len(text) >= 2 and text[0] + text[-1] in ("[]", "()", "{}"):
        kind, inside = ("set" if text[0] == "{" else "list"), text[1:-1]
    else:
        kind, inside = "bare", text
    pieces = _pieces(inside)
    if pieces is None or len(pieces) > _MAX_VALUES or (kind == "bare" and len(pieces) < 2):
        return None
    numbers = [_number(piece) for piece in pieces]
    return None if any(number is None for number in numbers) else (kind, [n for n in numbers if n is not None])


def _pieces(text: str) -> list[str] | None:
    """A text cut at its commas and semicolons outside brackets."""
    pieces, depth = [""], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return None
        if sign in ",;" and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += sign
    return pieces if depth == 0 else None


def _number(text: str) -> float | None:
    read = read_quantity(_CURRENCY.sub(r"\1", text), units=False)
    return None if read is None else read.value


def _quantity(
    answer: str, gold: str, rtol: float, atol: float | str, require_unit: bool, same_unit: bool
) -> float | None:
    wanted = read_quantity(gold, units=True)
    tolerance = None if wanted is None else _tolerance(atol, wanted)
    if wanted is None or tolerance is None:
        return None
    found = _first_read(answer, lambda text: read_quantity(text, units=True))
    if found is None:
        return 0.0
    if found.unit is None and not require_unit:
        found = Quantity(found.value, wanted.unit)
    if same_unit and found.unit != wanted.unit:
        return 0.0
    if (found.unit is None) != (wanted.unit is None):
        # 50 % is 0.5, and so is a ratio of equal units; a kilogram is not a number.
        value = convert(found.value, found.unit or "", wanted.unit or "")
    else:
        value = found.value if wanted.unit is None else convert(found.value, found.unit, wanted.unit)
    return float(value is not None and math.isfinite(value) and _near(value, wanted.value, rtol, tolerance))


def _tolerance(atol: float | str, gold: Quantity) -> float | None:
    if not isinstance(atol, str):
        return float(atol)
    read = read_quantity(atol, units=True)
    if read is None or (read.unit is None) != (gold.unit is None):
        return None if read is None or read.value else 0.0
    return read.value if gold.unit is None else convert(read.value, read.unit, gold.unit)


def warm_up() -> None:
    """Build the registry of units, which a first call would otherwise build within its time limit."""
    registry()
