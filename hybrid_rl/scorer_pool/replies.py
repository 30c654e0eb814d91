"""What a scorer process sends back, believed only as far as it has the form of an answer."""

from __future__ import annotations

import json
import math
from typing import Any

from hybrid_rl.records import Score
from hybrid_rl.scorer_pool.wire import BrokenWire


def read_reply(frame: bytes) -> dict[str, Any] | None:
    """The frame as a mapping, or None."""
    try:
        reply = json.loads(frame)
    except (ValueError, RecursionError):
        return None
    return reply if isinstance(reply, dict) else None


def read_scores(scores: Any, count: int | None) -> list[Score | None]:
    """The scores of a call.

    Raises:
        BrokenWire: they are none, or too few or many.
    """
    if not isinstance(scores, list) or len(scores) != (1 if count is None else count):
        raise BrokenWire("nonsense")
    found: list[Score | None] = []
    for entry in scores:
        match entry:
            case None:
                found.append(None)
            case [value, dict(parts)] if is_number(value) and all(map(is_number, parts.values())):
                found.append(Score(value=float(value), parts=parts))
            case _:
                raise BrokenWire("nonsense")
    return found


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
