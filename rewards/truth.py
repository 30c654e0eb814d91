"""Yes or no, true or false."""

from __future__ import annotations

import re
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import answer_span, as_text

_TRUE = {"y", "yes", "t", "true", "1", "correct", "right", "是", "对", "正确"}
_FALSE = {"n", "no", "f", "false", "0", "incorrect", "wrong", "否", "不是", "不对", "错", "错误"}
_WORD = re.compile(r"[^\W_]+(?:[.,]\d+)*")
_MAX_WORDS = 200


@blames_reference
def truth(answer: str, gold: Any) -> float | None:
    """1 if the answer says what the reference says, else 0; None for a reference that is neither true nor false.

    The first word of the answer decides. `yes and no` is no answer, and neither is `maybe`.
    """
    wanted = _read(str(gold) if isinstance(gold, (bool, int)) else as_text(gold))
    return None if wanted is None else float(_read(answer_span(as_text(answer))) is wanted)


def _read(text: str) -> bool | None:
    words = [word.casefold() for word in _WORD.findall(text[:4000])[:_MAX_WORDS]]
    if not words or words[0] not in _TRUE | _FALSE:
        return None
    if len(words) > 2 and words[1] in ("and", "or") and words[2] in _TRUE | _FALSE:
        return None
    if len(words) > 1 and (
        words[0] in "01" or (words[1] in _TRUE | _FALSE and (words[1] in _TRUE) != (words[0] in _TRUE))
    ):
        return None  # a number among others; `yes / no`
    return words[0] in _TRUE
