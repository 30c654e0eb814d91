"""Document question answering: ANLS (ST-VQA, DocVQA) and ANLS* (arXiv 2402.03848)."""

from __future__ import annotations

import json
from typing import Any, cast

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import as_text, golds, tagged
from rewards.edit_distance import affordable

_MAX_STRUCTURE = 20_000
_MAX_LEAVES = 64


@blames_reference
def anls(answer: str, gold: Any) -> float | None:
    """Best over the references of 1 - NL where NL < 0.5, else 0; NL = lev(a, b) / max(|a|, |b|). None without one.

    Case and runs of blanks do not count; punctuation does.
    """
    found = _folded(tagged(as_text(answer)))
    return max((_similarity(found, _folded(text)) for text in golds(gold)), default=None)


@blames_reference
def anls_star(answer: Any, gold: Any) -> float | None:
    """ANLS* of an answer and a reference that may be nested: texts, lists, records, nulls.

    Lists are matched without order, missing and invented entries cost. In a reference `{"one_of": [...]}` names
    alternatives. Where the reference is a list or a record, the answer is read as JSON if it is text.

    Returns:
        The score in [0, 1], by the authors' package; 0 for an answer far larger than the reference; None for a
        reference that is blank or too large.
    """
    from anls_star import anls_score

    if isinstance(gold, str) and gold.lstrip()[:1] in ("{", "["):
        gold = _from_json(gold)
    if isinstance(gold, str) and not gold.strip():
        return None
    if isinstance(answer, str) and isinstance(gold, (dict, list)) and not _alternatives(gold):
        answer = _from_json(tagged(answer))
    if not _fits(gold):
        return None
    if not _fits(answer):
        return 0.0
    return float(cast(float, anls_score(_with_tuples(gold), answer)))


def _from_json(text: str) -> Any:
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        return json.loads(text) if len(text) <= _MAX_STRUCTURE else text
    except (ValueError, RecursionError):
        return text


def _alternatives(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"one_of"} and isinstance(value["one_of"], list)


def _with_tuples(value: Any) -> Any:
    if _alternatives(value) and value["one_of"]:
        return tuple(_with_tuples(item) for item in value["one_of"])
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return [_with_tuples(item) for item in value] if isinstance(value, list) else value


def _fits(value: Any, depth: int = 0) -> bool:
    """Whether the package, pure Python and cubic in the entries of a list, can take this in time."""
    if depth > 8 or (isinstance(value, str) and len(value) > 1000):
        return False
    if isinstance(value, (dict, list)):
        items = list(value.values()) if isinstance(value, dict) else value
        return _leaves(value) <= _MAX_LEAVES and all(_fits(item, depth + 1) for item in items)
    return value is None or isinstance(value, (str, int, float))


def _leaves(value: Any, depth: int = 0) -> int:
    if depth > 8 or not isinstance(value, (dict, list)):
        return 1
    return sum(_leaves(item, depth + 1) for item in (value.values() if isinstance(value, dict) else value)) + 1


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(a: str, b: str) -> float:
    from rapidfuzz.distance import Levenshtein

    if not affordable(a, b):
        return 0.0
    distance = Levenshtein.normalized_distance(a, b)
    return 1 - distance if distance < 0.5 else 0.0


def warm_up() -> None:
    """Load what a first call would otherwise load within its time limit."""
    import anls_star  # noqa: F401
    import rapidfuzz.distance  # noqa: F401
