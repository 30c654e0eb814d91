"""Token F1 after SQuAD (Rajpurkar et al., arXiv 1606.05250): how many words are shared."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import as_text, golds, tagged

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_CLOSED = {"yes", "no", "noanswer"}


@blames_reference
def token_f1(answer: str, gold: Any) -> float | None:
    """F1 = 2PR / (P + R) over bags of words, best over the references; None without a reference.

    Case, punctuation and a/an/the do not count. `yes`, `no` and `noanswer` must match exactly.
    """
    scores = [_f1(_words(tagged(as_text(answer))), _words(text)) for text in golds(gold)]
    return max(scores, default=None)


def _words(text: str) -> list[str]:
    bare = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return _ARTICLE.sub(" ", bare).split()


def _f1(answer: list[str], gold: list[str]) -> float:
    if " ".join(answer) in _CLOSED or " ".join(gold) in _CLOSED or not answer or not gold:
        return float(answer == gold)
    shared = (Counter(answer) & Counter(gold)).total()
    return 2 * shared / (len(answer) + len(gold))
