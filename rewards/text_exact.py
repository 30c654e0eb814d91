"""Strict comparisons of texts: to the letter, up to blanks, up to everything but letters and digits."""

from __future__ import annotations

from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import as_text, golds, tagged


@blames_reference
def exact(answer: str, gold: Any) -> float | None:
    """1 if the answer is the reference to the letter, blanks at the ends apart; None without a reference."""
    return _same(as_text(answer), gold, blanks=None)


@blames_reference
def exact_ws(answer: str, gold: Any) -> float | None:
    """As `exact`, but a run of blanks or line breaks counts as one blank."""
    return _same(as_text(answer), gold, blanks=" ")


@blames_reference
def text_sloppy(answer: str, gold: Any) -> float | None:
    """As `exact`, without regard to case and blanks."""
    return _same(as_text(answer).casefold(), [text.casefold() for text in golds(gold)], blanks="")


@blames_reference
def alnum(answer: str, gold: Any) -> float | None:
    """1 if the letters and digits agree, without regard to case and everything else (NeMo-RL's exact match)."""
    wanted = {_letters(text) for text in golds(gold)} - {""}
    return float(_letters(tagged(as_text(answer))) in wanted) if wanted else None


def _letters(text: str) -> str:
    return "".join(sign for sign in text if sign.isalnum()).casefold()


def _same(answer: str, gold: Any, blanks: str | None) -> float | None:
    def plain(text: str) -> str:
        return text.strip() if blanks is None else blanks.join(text.split())

    wanted = {plain(text) for text in golds(gold)}
    return float(plain(answer) in wanted) if wanted else None
