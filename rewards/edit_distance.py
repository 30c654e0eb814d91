"""Edit distances and error rates, on rapidfuzz (documentation of rapidfuzz 3 and jiwer 4 for the definitions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import as_text

# The bit-parallel algorithm takes |a| * |b| / 64 steps. This bounds a verdict to well under a second.
_MAX_PRODUCT = 100_000_000


@blames_reference
def levenshtein(answer: str, gold: Any) -> float | None:
    """Fewest insertions, deletions and substitutions that make one text the other; a cost, not a reward.

    Pairs too long to be compared in time count as entirely different.
    """
    from rapidfuzz.distance import Levenshtein

    answer, gold = as_text(answer), as_text(gold)
    if not affordable(gold, gold):
        return None
    return float(Levenshtein.distance(answer, gold)) if affordable(answer, gold) else float(max(len(answer), len(gold)))


@blames_reference
def indel(answer: str, gold: Any) -> float | None:
    """Fewest insertions and deletions that make one text the other; a cost, not a reward."""
    from rapidfuzz.distance import Indel

    answer, gold = as_text(answer), as_text(gold)
    if not affordable(gold, gold):
        return None
    return float(Indel.distance(answer, gold)) if affordable(answer, gold) else float(len(answer) + len(gold))


@blames_reference
def edit_similarity(answer: str, gold: Any) -> float | None:
    """1 - lev(a, b) / max(|a|, |b|) up to case and runs of blanks, in [0, 1]; None without a reference."""
    answer, gold = (" ".join(as_text(text).lower().split()) for text in (answer, gold))
    distance = levenshtein(answer, gold) if gold else None
    return None if distance is None else 1 - distance / max(len(answer), len(gold))


@blames_reference
def cer(answer: Any, gold: Any) -> float | None:
    """Character error rate (S + D + I) / N; lower is better, and more than 1 is possible.

    Lists of texts give the rate of the corpus: all errors over all characters of the references.
    """
    return _rate(answer, gold, lambda text: " ".join(text.split()))


@blames_reference
def wer(answer: Any, gold: Any) -> float | None:
    """Word error rate (S + D + I) / N; lower is better, and more than 1 is possible. Lists as in `cer`."""
    return _rate(answer, gold, lambda text: text.split())


def _rate(answer: Any, gold: Any, units: Any) -> float | None:
    from rapidfuzz.distance import Levenshtein

    references = [as_text(text) for text in (gold if isinstance(gold, list) else [gold])]
    hypotheses = [as_text(text) for text in (answer if isinstance(answer, list) else [answer])]
    wanted = [units(text) for text in references]
    if not all(wanted) or not wanted:
        return None
    if not all(affordable(text, text) for text in wanted):
        return None
    found = [units(text) for text in hypotheses[: len(wanted)]]
    found += [units("")] * (len(wanted) - len(found))
    errors = sum(
        Levenshtein.distance(a, b) if affordable(a, b) else max(len(a), len(b))
        for a, b in zip(found, wanted, strict=True)
    )
    return errors / sum(len(text) for text in wanted)


def affordable(answer: Sequence[Any], gold: Sequence[Any]) -> bool:
    """Whether the distance of two sequences can be had in time."""
    return len(answer) * len(gold) <= _MAX_PRODUCT


def warm_up() -> None:
    """Load what a first call would otherwise load within its time limit."""
    import rapidfuzz.distance  # noqa: F401
