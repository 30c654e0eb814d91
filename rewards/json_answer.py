"""Answers in JSON: all of a record right, or the share of its entries."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference
from rewards.answer_span import tagged

_MAX_CHARACTERS = 50_000
_MAX_LEAVES = 2_000
_MAX_DEPTH = 32
_FENCE = re.compile(r"```(?:json)?\s{0,8}\n?(.{0,50000}?)```", re.DOTALL | re.IGNORECASE)
_MISSING = object()


@blames_reference
def json_exact(answer: Any, gold: Any) -> float | None:
    """1 if answer and reference are the same JSON value, else 0; None for an unreadable reference.

    The order of keys does not count, the order of lists does. 1 is 1.0, but not "1" and not true. The answer is JSON
    alone or in the last code fence.
    """
    pair = _pair(answer, gold)
    return None if pair is None else float(pair[0] is not _MISSING and _same(pair[0], pair[1]))


@blames_reference
def json_leaves(answer: Any, gold: Any) -> float | None:
    """Share of the entries that are right, in [0, 1]: equal leaves at equal paths over all paths of both sides."""
    pair = _pair(answer, gold)
    if pair is None:
        return None
    if pair[0] is _MISSING:
        return 0.0
    found, wanted = _leaves(pair[0]), _leaves(pair[1])
    if found is None or wanted is None:
        return 0.0
    right = sum(path in found and _same(found[path], value) for path, value in wanted.items())
    return right / len(found.keys() | wanted.keys())


def read_json(text: str) -> Any:
    """The JSON value of a text or of its last code fence.

    Raises:
        ValueError: there is none, or it is too long.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError("the text is too long")
    fences = _FENCE.findall(text)
    try:
        return json.loads(fences[-1] if fences else text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("the value is nested too deeply") from None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _pair(answer: Any, gold: Any) -> tuple[Any, Any] | None:
    try:
        wanted = read_json(gold) if isinstance(gold, str) else gold
    except ValueError:
        return None
    if wanted is None or _leaves(wanted) is None:
        return None
    try:
        found = read_json(tagged(answer)) if isinstance(answer, str) else answer
    except ValueError:
        found = _MISSING
    return (found if found is _MISSING or _leaves(found) is not None else _MISSING), wanted


def _leaves(value: Any) -> dict[tuple[Any, ...], Any] | None:
    """Leaves by path, an empty list or record being one; None if there are too many, or too deep ones."""
    leaves: dict[tuple[Any, ...], Any] = {}
    stack: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if len(path) > _MAX_DEPTH or len(leaves) + len(stack) > _MAX_LEAVES:
            return None
        if isinstance(item, dict) and item:
            stack += [((*path, key), inner) for key, inner in item.items()]
        elif isinstance(item, list) and item:
            stack += [((*path, place), inner) for place, inner in enumerate(item)]
        else:
            leaves[path] = item
    return leaves


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-9))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)
