"""Instruction constraints that can be checked by rule (after IFEval, arXiv 2311.07911)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference, pays_for
from rewards.json_answer import read_json
from rewards.language_consistency import script_share

_MAX_CHARACTERS = 100_000
_MAX_CONSTRAINTS = 64
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|[。！？]+")
_LIST_ITEM = re.compile(r"^\s{0,16}(?:[-*+•]|\d{1,3}[.)])\s+\S", re.MULTILINE)
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+(?:['’-][^\W\u3040-\u30ff\u3400-\u9fff]+)*"
)
_SCRIPTS = {
    "latin": "LATIN", "cyrillic": "CYRILLIC", "greek": "GREEK", "arabic": "ARABIC", "hebrew": "HEBREW",
    "devanagari": "DEVANAGARI", "thai": "THAI", "korean": "HANGUL", "chinese": "CJK", "japanese": "KANA",
}  # fmt: skip

Check = Callable[[str, Mapping[str, Any]], bool]


@pays_for("stand_in", "repeated", "all_options", "hedged", "denied", "question", "word_dump", "boxes")
@blames_reference
def constraints(answer: str, gold: Any, all_of_them: bool = False) -> float | None:
    """Share of the constraints that the answer keeps, in [0, 1]; an empty answer keeps none.

    Args:
        answer: the final answer.
        gold: a list of records, or that as JSON; each has a `kind` of `KINDS` and what the kind asks for.
        all_of_them: 1 only where every constraint is kept, else 0.

    Returns:
        None where the reference is no such list, names an unknown kind, or lacks what a kind needs.
    """
    wanted = read_constraints(gold)
    if wanted is None:
        return None
    if not answer.strip() or len(answer) > _MAX_CHARACTERS:
        return 0.0
    try:
        kept = [KINDS[item["kind"]](answer.strip(), item) for item in wanted]
    except (KeyError, TypeError, ValueError, AttributeError):  # a constraint without its arguments
        return None
    return float(all(kept)) if all_of_them else sum(kept) / len(kept)


def read_constraints(gold: Any) -> list[Mapping[str, Any]] | None:
    """The constraints that a reference lists; None where it is no such list, or names an unknown kind."""
    try:
        value = json.loads(gold) if isinstance(gold, str) else gold
    except (ValueError, RecursionError):
        return None
    value = [value] if isinstance(value, dict) else value
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_CONSTRAINTS:
        return None
    known = all(
        isinstance(item, dict) and isinstance(item.get("kind"), str) and item["kind"] in KINDS for item in value
    )
    return value if known else None


def _within(count: int, item: Mapping[str, Any]) -> bool:
    """Whether a count keeps `min`, `max` or `exactly`."""
    given = {name: int(item[name]) for name in ("min", "max", "exactly") if name in item}
    if not given:
        raise ValueError("a count needs min, max or exactly")
    exact = given.get("exactly", count)
    return count == exact and given.get("min", count) <= count <= given.get("max", count)


def _counted(counter: Callable[[str], int]) -> Check:
    return lambda text, item: _within(counter(text), item)


def _words(text: str) -> int:
    return len(_WORD.findall(text))


def _sentences(text: str) -> int:
    pieces = [piece for piece in _SENTENCE_END.split(text) if _WORD.search(piece)]
    return len(pieces)


def _paragraphs(text: str) -> int:
    return sum(bool(piece.strip()) for piece in text.split("\n\n"))


def _lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.split("\n"))


def _times(text: str, keyword: str) -> int:
    """Occurrences of a keyword as a whole word or phrase, whatever its case."""
    if not isinstance(keyword, str) or not keyword.strip():
        raise ValueError("a keyword is a text that is not blank")
    edge = [r"(?<!\w)" if keyword[0].isascii() and keyword[0].isalnum() else "", ""]
    edge[1] = r"(?!\w)" if keyword[-1].isascii() and keyword[-1].isalnum() else ""
    return len(re.findall(edge[0] + re.escape(keyword) + edge[1], text, re.IGNORECASE))


def _listed(item: Mapping[str, Any], name: str) -> Sequence[str]:
    value = item[name]
    return [value] if isinstance(value, str) else list(value)


def _keyword(text: str, item: Mapping[str, Any]) -> bool:
    times = _times(text, item["word"])
    return _within(times, item) if {"min", "max", "exactly"} & item.keys() else times > 0


def _is_json(text: str) -> bool:
    try:
        read_json(text)
    except ValueError:
        return False
    return True


def _has_case(text: str, case: str) -> bool:
    """`upper` and `lower` on every letter; `title`: every word of letters begins with a capital."""
    if case not in ("upper", "lower", "title"):
        raise ValueError(f"no case is called {case}")
    if case == "title":
        words = [word for word in _WORD.findall(text) if word[0].isalpha()]
        return bool(words) and all(word[0].isupper() for word in words)
    return text.isupper() if case == "upper" else text.islower()


KINDS: Mapping[str, Check] = MappingProxyType(
    {
        "characters": _counted(len),
        "words": _counted(_words),
        "sentences": _counted(_sentences),
        "paragraphs": _counted(_paragraphs),
        "lines": _counted(_lines),
        "list_items": _counted(lambda text: len(_LIST_ITEM.findall(text))),
        "placeholders": _counted(lambda text: len(re.findall(r"\[[^\[\]\n]{1,80}\]", text))),
        "capital_words": _counted(lambda text: sum(word.isupper() for word in _WORD.findall(text))),
        "keyword": _keyword,
        "keywords": lambda text, item: all(_times(text, word) for word in _listed(item, "words")),
        "forbidden": lambda text, item: not any(_times(text, word) for word in _listed(item, "words")),
        "case": lambda text, item: _has_case(text, item["case"]),
        "starts_with": lambda text, item: text.casefold().startswith(str(item["text"]).casefold()),
        "ends_with": lambda text, item: text.casefold().endswith(str(item["text"]).casefold()),
        "script": lambda text, item: script_share(text, _SCRIPTS[str(item["script"]).lower()]) >= 0.9,
        "json": lambda text, item: _is_json(text),
        "no_commas": lambda text, item: not any(sign in text for sign in ",，、"),
        "quoted": lambda text, item: len(text) > 1 and text[0] + text[-1] in ('""', "“”", "「」", "«»"),
        "title": lambda text, item: re.search(r"<<[^<>\n]{1,200}>>", text) is not None,
        "one_of": lambda text, item: (
            text.strip(" .").casefold() in {option.strip(" .").casefold() for option in _listed(item, "options")}
        ),
    }
)
"""Checks by kind. Counts take `min`, `max` and `exactly`."""
