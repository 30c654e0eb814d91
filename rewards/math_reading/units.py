"""Units, currencies and counted things at the end of an answer: taken off, and compared where both sides name one."""

from __future__ import annotations

import re
from fractions import Fraction

_TABLE = {
    "length": "m:1 meter:1 metre:1 cm:1/100 centimeter:1/100 centimetre:1/100 mm:1/1000 millimeter:1/1000 "
    "millimetre:1/1000 km:1000 kilometer:1000 kilometre:1000 in:127/5000 inch:127/5000 inche:127/5000 ft:381/1250 "
    "foot:381/1250 feet:381/1250 yd:1143/1250 yard:1143/1250 mi:201168/125 mile:201168/125 nm:1/1000000000 dm:1/10 "
    "μm:1/1000000 米:1 厘米:1/100 千米:1000 毫米:1/1000 公里:1000",
    "mass": "kg:1 kilogram:1 g:1/1000 gram:1/1000 mg:1/1000000 t:1000 ton:1000 tonne:1000 lb:45359237/100000000 "
    "pound:45359237/100000000 oz:45359237/1600000000 ounce:45359237/1600000000 千克:1 公斤:1 克:1/1000 吨:1000",
    "time": "s:1 sec:1 second:1 ms:1/1000 min:60 minute:60 h:3600 hr:3600 hour:3600 day:86400 week:604800 "
    "秒:1 分钟:60 小时:3600 天:86400",
    "volume": "l:1 liter:1 litre:1 ml:1/1000 milliliter:1/1000 millilitre:1/1000 升:1 毫升:1/1000 "
    "gallon:3785411784/1000000000",
    "angle": "degree:1 deg:1 °:1 度:1",
    "radian": "rad:1 radian:1",
    "usd": "usd:1 dollar:1 \x01:1 cent:1/100 us dollar:1 buck:1 美元:1",
    "eur": "eur:1 euro:1 €:1",
    "gbp": "gbp:1 £:1",
    "jpy": "jpy:1 yen:1 ¥:1",
    "inr": "inr:1 rupee:1 ₹:1",
    "cny": "cny:1 yuan:1 rmb:1 元:1",
    "force": "n:1 newton:1",
    "energy": "j:1 joule:1 kj:1000",
    "power": "w:1 watt:1 kw:1000",
    "pressure": "pa:1 pascal:1",
    "voltage": "v:1 volt:1",
    "current": "amp:1 ampere:1",
    "frequency": "hz:1 hertz:1",
    "celsius": "degc:1 celsius:1",
    "fahrenheit": "degf:1 fahrenheit:1",
    "speed-mph": "mph:1",
    "speed-kmh": "kmh:1 kph:1",
    "area-scale": "acre:1",
    "square": "square unit:1 sq unit:1 unit:1",
}
_KNOWN: dict[str, tuple[str, Fraction]] = {}
for _dimension, _row in _TABLE.items():
    for _entry in re.findall(r"([^:]+):(\S+)\s*", _row):
        _KNOWN[_entry[0]] = (_dimension, Fraction(_entry[1]))

# Words that make a statement of what would be a quantity.
_NO_UNIT = frozenset(
    [
        "or",
        "and",
        "not",
        "no",
        "is",
        "are",
        "isn't",
        "if",
        "else",
        "wrong",
        "true",
        "false",
        "than",
        "more",
        "less",
        "then",
        "but",
        "because",
        "so",
        "when",
        "where",
        "for",
        "from",
        "to",
        "it",
        "be",
        "plus",
        "minus",
        "times",
        "equals",
        "equal",
        "over",
        "maybe",
        "either",
        "neither",
        "nor",
        "i",
        "we",
        "the",
        "answer",
        "true.",
        "about",
    ]
)
_BETWEEN = frozenset({"square", "sq", "cubic", "cu", "per"})
CURRENCIES = "\x01€£¥₹"
_TAIL = re.compile(
    r"(?P<rest>.*?[\d)}\]!'A-Za-z|%])(?P<gap>\s*)"
    r"(?:\\text\s*\{(?P<text>[^{}]*)\}|"
    r"(?<![A-Za-z\\])(?P<words>[^\W\d_]{1,24}(?:(?:\s*[/*]\s*|[ .-]+)[^\W\d_]{1,24}){0,4}))"
    r"(?P<power>\s*\^\s*\{?\s*-?\d\s*\}?)?\s*(?:/\s*\\text\s*\{(?P<per>[^{}]*)\}(?P<per_power>\s*\^\s*\{?\s*\d\s*\}?)?)?",
    re.DOTALL,
)
_TEMPERATURE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*(?:\\text\s*\{\s*([CF])\s*\}|([CF])(?![A-Za-z]))")
_ONE_UNIT = r"\s*(?:\\text\s*\{([^{}]*)\}|([A-Za-zμ]+))\s*(\^\s*(?:\d|\{\s*\d\s*\}))?\s*"
_UNIT_FRACTION = re.compile(rf"(?<=[\d\s)}}])\\frac\s*\{{{_ONE_UNIT}\}}\s*\{{{_ONE_UNIT}\}}\s*\Z")
_NUMBER_ABOVE = re.compile(r"\\frac\s*\{\s*([-+]?[\d.,]+)(?=\s*(?:\\text|[A-Za-zμ]))")
_PERCENT = re.compile(r"(?<=[\d\s})])(?:\\text\s*\{\s*)?(?:percent(?:age)?|per cent|pct|Percent)\b\.?\s*\}?")
_SCALE = re.compile(r"(?<=[\d\s}])(?:\\text\s*\{\s*)?(thousand|million|billion|trillion)\b\s*(\})?")
_POWERS = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}


def spelled_scales(text: str) -> str:
    """`5 million` as `5 *10^6`, `28 percent` as `28%`."""
    if not any(letter in text for letter in "pPm") and "thousand" not in text and "illion" not in text:
        return text
    text = _PERCENT.sub("%", text)
    return _SCALE.sub(lambda m: f"*10^{_POWERS[m[1]]}" + ("" if m[2] or "\\text" not in m[0] else " \\text{"), text)


def split_unit(text: str, *, glued_letters: bool) -> tuple[str, str] | None:
    """The text without its unit, and the unit; None where it ends in none.

    `glued_letters`: a single letter that touches the number (`3s`) is a unit too; it may be a variable.
    """
    if above := _NUMBER_ABOVE.match(text):  # the number in front of the fraction: \frac{5 km}{h}
        moved = _UNIT_FRACTION.sub(_fraction_of_units, f"{above[1]} \\frac{{{text[above.end() :]}")
        text = text if "\\frac" in moved else moved
    text = _UNIT_FRACTION.sub(_fraction_of_units, text)
    text = _TEMPERATURE.sub(lambda m: f" \\text{{deg{m[1] or m[2]}}}", text)
    currency = next((sign for sign in CURRENCIES if sign in text), "")
    if currency:
        text = text.replace(currency, " ").strip()
    match = _TAIL.fullmatch(text) if (text and not text[-1].isdigit()) or "\\text" in text or "^" in text else None
    words = (match["text"] if match["text"] is not None else match["words"]) if match else None
    if not match or words is None or not _is_unit(match, words, glued_letters):
        return (text, currency) if currency else None
    unit = words + (match["power"] or "") + (f"/{match['per']}{match['per_power'] or ''}" if match["per"] else "")
    return match["rest"], currency or unit


def _fraction_of_units(match: re.Match[str]) -> str:
    """`\\frac{km}{h}` as one unit, where its letters are no variables: upright, or known and not single ones."""
    words = [(match[1] or match[2]).strip(), (match[4] or match[5]).strip()]
    upright = match[1] is not None or match[4] is not None
    if not upright and not (all(_singular(w) in _KNOWN for w in words) and max(map(len, words)) > 1):
        return match[0]
    above, below = (
        word + re.sub(r"[\s{}]", "", power or "") for word, power in zip(words, match.group(3, 6), strict=True)
    )
    return f"\\text{{{above}/{below}}}"


def _is_unit(match: re.Match[str], words: str, glued_letters: bool) -> bool:
    rest = match["rest"]
    pieces = [w.casefold() for w in re.split(r"[\s/*.-]+", words) if w]
    if any(piece in _NO_UNIT or "\\" in piece for piece in pieces) or len(pieces) > 6:
        return False
    if match["text"] is not None:
        if re.search(r"[,;]|(?<![\w^-])\d", words):  # `3 apples, 4 pears`
            return False
        return bool(re.search(r"[\d)}\]!A-Za-z|]$", rest))
    if re.search(r"\\(?!pi$)[A-Za-z]*$", rest) or not re.search(r"(?:[\d)}\]]|\\pi)$", rest):
        return False
    if not words.isascii():
        return True
    known = all(_singular(piece) in _KNOWN for piece in pieces)
    if len(words) == 1:
        # The blank behind \\pi ends the command and says nothing.
        return known and (glued_letters or (bool(match["gap"]) and not rest.endswith("\\pi")))
    return known or (
        bool(match["gap"])
        and all(len(p) > 2 or p in ("of", "in", "sq", "cu") or _singular(p) in _KNOWN for p in pieces)
    )


def is_known_unit(text: str) -> bool:
    """Whether words are the names of units (`km/h`, `square cm`) and nothing else."""
    pieces = [w.casefold() for w in re.split(r"[\s/*.^\d-]+", text) if w]
    named = [piece for piece in pieces if piece not in _BETWEEN]
    return bool(named) and all(_singular(piece) in _KNOWN for piece in named)


def _singular(word: str) -> str:
    word = word.casefold()
    if word in _KNOWN or len(word) < 3:
        return word
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _meaning(unit: str) -> tuple[tuple[tuple[str, int], ...], Fraction]:
    """Dimensions with their powers, and the factor to their base."""
    powers: dict[str, int] = {}
    factor = Fraction(1)
    unit = re.sub(r"\bper\b", "/", unit.casefold())
    unit = re.sub(r"\b(?:square|sq\.?)\s+(\w+)", r"\1^2", unit) if "unit" not in unit else unit
    unit = re.sub(r"\b(?:cubic)\s+(\w+)", r"\1^3", unit)
    for at, part in enumerate(unit.split("/")):
        sign = -1 if at else 1
        whole = " ".join(part.split())
        names = (
            [whole]
            if _singular(whole) in _KNOWN
            else re.findall(r"[^\W\d_]+\s*(?:\^\s*\{?\s*-?\d\s*\}?)?|[°€£¥₹\x01]", part)
        )
        for name in names:
            word, _, power = name.partition("^")
            exponent = sign * int(re.sub(r"[{}\s]", "", power) or 1)
            dimension, scale = _KNOWN.get(_singular(word.strip()), (_singular(word.strip()), Fraction(1)))
            powers[dimension] = powers.get(dimension, 0) + exponent
            factor *= scale**exponent
    return tuple(sorted((d, p) for d, p in powers.items() if p)), factor


def conversion(unit: str, other: str) -> Fraction | None:
    """How many of `other` one `unit` is; None where they measure different things."""
    dimensions, factor = _meaning(unit)
    other_dimensions, other_factor = _meaning(other)
    return factor / other_factor if dimensions == other_dimensions else None
