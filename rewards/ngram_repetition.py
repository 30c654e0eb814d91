"""A soft penalty on repeated n-grams (Demystifying Long CoT, arXiv 2502.03373).

It grows with length, and so punishes thought; the loop detector of `repetition` almost never does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Scripts without blanks between words: each character counts as one.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def ngram_repetition(text: str, ngram: int = 3, max_penalty: float = -1.0) -> float:
    """(1 - different / all) * max_penalty over the n-grams of the lower-cased words; 0 below `ngram` words."""
    return repetition_penalty(_WORD.findall(text.lower()), ngram, max_penalty)


def repetition_penalty(units: Sequence[object], ngram: int, max_penalty: float) -> float:
    """The penalty over any units, such as token ids (TRL).

    Args:
        units: words or ids.
        ngram: units of a window, at least 1.
        max_penalty: the value where everything repeats, at most 0.
    """
    if ngram < 1 or max_penalty > 0:
        raise ValueError(f"ngram must be at least 1 and max_penalty at most 0, not {ngram} and {max_penalty}")
    total = len(units) - ngram + 1
    if total < 1:
        return 0.0
    different = len({tuple(units[start : start + ngram]) for start in range(total)})
    return (1 - different / total) * max_penalty


class TokenRepetition:
    """The penalty on token ids, for a config."""

    def __init__(self, ngram: int = 3, max_penalty: float = -1.0) -> None:
        repetition_penalty((), ngram, max_penalty)
        self.ngram = ngram
        self.max_penalty = max_penalty

    def __call__(self, ids: Sequence[int]) -> float:
        return repetition_penalty(ids, self.ngram, self.max_penalty)
