"""OCR match: is the transcription right?"""

from __future__ import annotations

import unicodedata

from hybrid_rl.scorer_pool.declare import inline


@inline
def ocr_match(answer: str, gold: str) -> float:
    """1 if answer and reference show the same characters, else 0.

    Layout does not count: line breaks and runs of blanks are one blank, full-width and other compatibility forms are
    their plain characters. Everything else does: case, punctuation, and a blank inside a number.
    """
    return float(_plain(answer) == _plain(gold))


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
