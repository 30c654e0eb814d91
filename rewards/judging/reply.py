"""The envelope around a chat model's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rewards.judging.verdict import UnreadableVerdict, read_json

_MOST_TOKENS = 10**9
"""A count above this is no count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for one request.

    Attributes:
        text: the words of the only choice; empty where they were cut off at the limit of tokens.
        prompt_tokens: that were read, 0 where the server does not say.
        completion_tokens: that were written.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int


def read_reply(body: bytes) -> Reply:
    """Read a chat completion.

    Raises:
        UnreadableVerdict: it is not one.
    """
    found = read_json(body)
    usage = _part(found, "usage")
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise UnreadableVerdict("its reply is no chat completion with one choice")
    text = _part(choices[0], "message").get("content")
    return Reply(
        text=text if isinstance(text, str) and choices[0].get("finish_reason") != "length" else "",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _part(value: Any, name: str) -> dict[str, Any]:
    """A JSON object inside another one; an empty one where it is not there."""
    part = value.get(name) if isinstance(value, dict) else None
    return part if isinstance(part, dict) else {}


def _count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS
    return value if is_count else 0
