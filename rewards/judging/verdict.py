"""A judge's verdict: one JSON object with a score from 0 to 1. Nothing else counts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

VERDICT_FORMAT = MappingProxyType(
    {
        "type": "json_schema",
        "json_schema": {
            "name": "verdict",
            "strict": True,
            "schema": {
                "type": "object",
                "properties": {
                    "reason": {"type": "string"},
                    # Bounds are left to `read_verdict`: not every server takes them in a schema.
                    "score": {"type": "number", "description": "from 0 to 1"},
                },
                "required": ["reason", "score"],
                "additionalProperties": False,
            },
        },
    }
)
"""`response_format` of a request; the reason comes first, so that the score is drawn with it in sight."""
_MAX_CHARACTERS = 20_000
_KEPT_OF_REASON = 2_000
_CODE_FENCE = re.compile(r"```(?:json)?\s*\n(.*)\n\s*```", re.DOTALL)


class UnreadableVerdict(ValueError):
    """A reply that is no verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a judge said.

    Attributes:
        score: from 0 to 1.
        reason: in its words; material, as everything that a model wrote.
    """

    score: float
    reason: str = ""


def read_verdict(text: str) -> Verdict:
    """Read a reply that is one JSON object `{"reason": text, "score": number}`, bare or as one code block.

    Raises:
        UnreadableVerdict: it is anything else: words around it, two objects, a name twice or too many, a score outside
            [0, 1], NaN, or a truth value.
    """
    if not text.strip():
        raise UnreadableVerdict("it said nothing, or too much for max_tokens")
    if len(text) > _MAX_CHARACTERS:
        raise UnreadableVerdict(f"its reply has {len(text)} characters")
    block = _CODE_FENCE.fullmatch(text.strip())
    found = read_json(block.group(1) if block else text)
    if not isinstance(found, dict) or "score" not in found or not found.keys() <= {"reason", "score"}:
        raise UnreadableVerdict("its reply is not an object with a score and a reason")
    score, reason = found["score"], found.get("reason", "")
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise UnreadableVerdict(f"its score is {str(score)[:20]}, not a number from 0 to 1")
    if not isinstance(reason, str):
        raise UnreadableVerdict("its reason is not a text")
    return Verdict(score=float(score), reason=reason[:_KEPT_OF_REASON])


def read_json(text: str | bytes) -> Any:
    """Read JSON as its standard has it: a name once an object, and no NaN or infinity.

    Raises:
        UnreadableVerdict: it is not JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UnreadableVerdict(f"its reply is not JSON ({str(error)[:80]})") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
