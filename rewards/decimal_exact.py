"""Decimal numbers compared without rounding."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import answer_span, as_text

_DECIMAL = re.compile(r"[-+]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})", re.ASCII)


@blames_reference
def decimal_exact(answer: str, gold: Any) -> float | None:
    """1 if both are the same decimal number, to the last digit (1.2 is 1.200), else 0; None for an unreadable one."""
    wanted = _read(as_text(gold))
    return None if wanted is None else float(_read(answer_span(as_text(answer))) == wanted)


def _read(text: str) -> Decimal | None:
    text = text.strip().replace("−", "-")
    text = text.removesuffix(".")
    return Decimal(text) if _DECIMAL.fullmatch(text) else None
