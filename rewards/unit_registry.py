"""Names of units, resolved by pint. The registry is built once a process."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any

_NAME = re.compile(r"[A-Za-zµμΩÅ°_]{1,32}")
_SPELLINGS = {
    "°C": "degC",
    "°F": "degF",
    "°": "degree",
    "℃": "degC",
    "℉": "degF",
    "Å": "angstrom",
    "celsius": "degC",
    "fahrenheit": "degF",
}


@cache
def registry() -> Any:
    """The registry; building it takes most of a second."""
    import pint

    return pint.UnitRegistry()


@lru_cache(maxsize=4096)
def unit(name: str) -> Any:
    """The pint unit of one name (`kg`, `kilofeet`), or None for a name that is none. Never evaluates text."""
    import pint

    name = _SPELLINGS.get(name, _SPELLINGS.get(name.lower(), name))
    if not _NAME.fullmatch(name):
        return None
    # Symbols are case-sensitive (mN, MN); words are not (Meters).
    for spelling in (name, name.lower()) if len(name) > 3 else (name,):
        try:
            return registry().parse_units(spelling)
        except (pint.PintError, AttributeError, ValueError, TypeError):
            continue
    return None


def convert(value: float, source: Any, target: Any) -> float | None:
    """A value in another unit, or None where the two measure different things."""
    import pint

    try:
        return float(registry().Quantity(value, source).to(target).magnitude)
    except (pint.PintError, ArithmeticError, ValueError, TypeError):
        return None
