"""Names of units: is it the same unit, however it is spelled?"""

from __future__ import annotations

from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import answer_span, as_text
from rewards.quantity import read_quantity
from rewards.unit_registry import registry


@blames_reference
def unit_name(answer: str, gold: Any) -> float | None:
    """1 if both name the same unit (m, meter, metres), else 0; a centimetre is no metre. None for an unreadable one."""
    wanted = _read(as_text(gold))
    if wanted is None:
        return None
    found = _read(answer_span(as_text(answer)))
    return float(found is not None and found == wanted)


def _read(text: str) -> Any:
    read = read_quantity(text, units=True)
    return read.unit if read is not None and read.value == 1.0 else None


def warm_up() -> None:
    """Build the registry of units, which a first call would otherwise build within its time limit."""
    registry()
