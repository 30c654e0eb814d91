"""OCR match: is the transcription right?"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference, inline
from rewards.answer_span import as_text, golds

# A quotation, or what stands behind the last word that announces a reading.
_QUOTED = re.compile(r"[\"“«「『]([^\"“”«»「」『』]{1,2000})[\"”»」』]")
_ANNOUNCES = re.compile(
    r"(?:\b(?:says|reads|read|is|shows|displays|states|spells)\b\s{0,4}:?|:|：|写着|是)\s{0,4}", re.IGNORECASE
)
_EDGE = "\"'“”«»「」『』`*.。!！?？,，;；:：()[] "
_FRAME_WORDS = 12
_MAX_CHARACTERS = 20_000


@inline
@blames_reference
def ocr_match(answer: str, gold: Any) -> float | None:
    """1 if the answer shows the text of the reference, else 0; None without a reference.

    Layout does not count: line breaks and runs of blanks are one blank, full-width and other compatibility forms are
    their plain characters. Neither do case and signs at the ends of words' texts as a whole. A short sentence around
    the reading (`The sign says "STOP".`) is allowed: its one quotation, or the end behind `says`, `reads`, `is` or a
    colon is read, and nothing else, so that listing words does not pay. Digits count as they stand: a reference without
    letters must be the whole answer, up to layout.
    """
    found = _plain(as_text(answer))
    return max((_match(found, _plain(text)) for text in golds(gold)), default=None)


@blames_reference
def ocr_exact(answer: str, gold: Any) -> float | None:
    """1 if answer and reference show the same characters, up to layout, else 0; None without a reference.

    As `ocr_match`, with case, punctuation and accents, and without a sentence around the reading.
    """
    wanted = {_plain(text) for text in golds(gold)}
    return float(_plain(as_text(answer)) in wanted) if wanted else None


def _match(answer: str, gold: str) -> float:
    if answer == gold:
        return 1.0
    if not any(sign.isalpha() for sign in gold) or len(answer) > len(gold) + _MAX_CHARACTERS:
        return 0.0
    wanted = _bare(gold)
    return float(bool(wanted) and wanted in {_bare(answer), _bare(_reading(answer, len(gold.split())))})


def _reading(answer: str, words: int) -> str:
    """The one reading that a short sentence frames, or `""`."""
    if len(answer.split()) > words + _FRAME_WORDS:
        return ""
    quoted = _QUOTED.findall(answer)
    if quoted:
        return str(quoted[0]) if len(quoted) == 1 else ""
    end = 0
    for found in _ANNOUNCES.finditer(answer):
        end = found.end()
    return answer[end:] if end else ""


def _bare(text: str) -> str:
    return text.strip(_EDGE).casefold()


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
