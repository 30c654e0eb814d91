"""Charts: relaxed accuracy (ChartQA, arXiv 2203.10244), as published and cleaned."""

from __future__ import annotations

import math
import re
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import answer_span, as_text, golds, tagged

_TOLERANCE = 0.05
# Far more digits than a float holds cannot be meant.
_MAX_CHARACTERS = 64
_CLEAN_NUMBER = re.compile(
    r"[-+]?(?:(?:\d{1,30}|\d{1,3}(?:,\d{3}){1,9})(?:\.\d{0,30})?|\.\d{1,30})(?:e[-+]?\d{1,3})?", re.IGNORECASE
)
_YEAR = re.compile(r"(?:1[5-9]|20)\d\d", re.ASCII)


@blames_reference
def relaxed(answer: str, gold: Any) -> float | None:
    """1 within 5 % of a number, or for the same text up to case; best over the references; None without one.

    By the published rule: `%` divides by 100, thousands separators are not read, a reference of 0 wants the same text,
    and years get their 5 % too.
    """
    found = tagged(as_text(answer)).strip()
    return max((_relaxed(found, text.strip()) for text in golds(gold)), default=None)


@blames_reference
def relaxed_clean(answer: str, gold: Any) -> float | None:
    """As `relaxed`, without its slips.

    Thousands separators and currency signs are read; `%` is dropped from both sides, so that 81.9 % is 81.9; a
    reference of 0 is a number; and one that looks like a year (1500 to 2099) must be met exactly.
    """
    found = answer_span(as_text(answer)).strip()
    return max((_clean(found, text.strip()) for text in golds(gold)), default=None)


def _relaxed(answer: str, gold: str) -> float:
    found, wanted = _to_float(answer), _to_float(gold)
    if found is not None and wanted:
        return float(abs(found - wanted) / abs(wanted) <= _TOLERANCE)
    return float(answer.lower() == gold.lower())


def _to_float(text: str) -> float | None:
    if len(text) > _MAX_CHARACTERS:
        return None
    try:
        value = float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _clean(answer: str, gold: str) -> float:
    found, wanted = _clean_number(answer), _clean_number(gold)
    if found is None or wanted is None:
        return float(" ".join(answer.lower().rstrip(".").split()) == " ".join(gold.lower().rstrip(".").split()))
    if wanted == 0 or _YEAR.fullmatch(gold):
        return float(found == wanted)
    return float(abs(found - wanted) / abs(wanted) <= _TOLERANCE)


def _clean_number(text: str) -> float | None:
    text = text.replace("−", "-").strip("$€£¥ ").removesuffix("%").strip()
    if len(text) > _MAX_CHARACTERS:
        return None
    text = text.removesuffix(".")
    if not _CLEAN_NUMBER.fullmatch(text):
        return None
    value = float(text.replace(",", ""))
    return value if math.isfinite(value) else None
