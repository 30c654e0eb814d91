"""OCRBench (arXiv 2305.07895) and OCRBench v2 (arXiv 2501.00321): is the reference in the answer?

For evaluation. Containment pays for a dump of words, so as a training reward take `ocr_match`.
"""

from __future__ import annotations

from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference, pays_for
from rewards.answer_span import FULL_WIDTH, as_text, golds
from rewards.edit_distance import affordable

_DUMPS = (
    "empty",
    "stand_in",
    "repeated",
    "all_options",
    "hedged",
    "denied",
    "question",
    "word_dump",
    "number_list",
    "boxes",
)
"""What containment pays for; `empty` and `stand_in` where a short reference happens to be part of such a text."""


@pays_for(*_DUMPS)
@blames_reference
def ocrbench(answer: str, gold: Any) -> float | None:
    """1 if any reference is part of the answer, else 0; case, line breaks and full-width ASCII do not count."""
    return _contains(_line(as_text(answer)), [_line(text) for text in golds(gold)])


@pays_for(*_DUMPS)
@blames_reference
def ocrbench_hme(answer: str, gold: Any) -> float | None:
    """For handwritten formulas (HME100k): as `ocrbench`, with case and without any blanks."""
    return _contains("".join(as_text(answer).split()), ["".join(text.split()) for text in golds(gold)])


@pays_for(*_DUMPS)
@blames_reference
def ocrbench_v2_vqa(answer: str, gold: Any) -> float | None:
    """Best over the references: of fewer than five words, contained or not; else 1 - NL where that is 0.5 or more."""
    found = _line(as_text(answer))
    return max((_short_or_similar(found, _line(text), len(text.split()) < 5) for text in golds(gold)), default=None)


@pays_for(*_DUMPS)
@blames_reference
def ocrbench_cn(answer: str, gold: Any) -> float | None:
    """As `ocrbench_v2_vqa` without blanks; short are references of fewer than four pieces between commas."""
    found = "".join(_line(as_text(answer)).split())
    wanted = ["".join(_line(text).split()) for text in golds(gold)]
    return max((_short_or_similar(found, text, len(text.split(",")) < 4) for text in wanted), default=None)


def _line(text: str) -> str:
    return text.translate(FULL_WIDTH).lower().strip().replace("\n", " ")


def _contains(answer: str, wanted: list[str]) -> float | None:
    return float(any(text in answer for text in wanted)) if wanted else None


def _short_or_similar(answer: str, gold: str, short: bool) -> float:
    from rapidfuzz.distance import Levenshtein

    if short:
        return float(gold in answer)
    if not affordable(answer, gold):
        return 0.0
    similarity = float(Levenshtein.normalized_similarity(answer, gold))
    return similarity if similarity >= 0.5 else 0.0


def warm_up() -> None:
    """Load what a first call would otherwise load within its time limit."""
    import rapidfuzz.distance  # noqa: F401
