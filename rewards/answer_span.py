"""Where the final answer stands in free text: behind the thought, in a tag, in a box, behind an announcement.

For rewards on words, letters and boxes. Nothing is fished out: where nothing marks an answer, the whole text is it.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_CHARACTERS = 20_000
"""Of a longer text only the end is searched for markers; a final answer stands there."""

FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}
"""For `str.translate`: full-width ASCII and the ideographic blank to plain signs, and no other character."""

_OPEN, _CLOSE = "<think>", "</think>"
# Chat templates end a turn with such a token: `<|im_end|>`.
_SPECIAL_TOKEN = re.compile(r"<\|[\w ]{1,32}\|>")
_ANNOUNCED = re.compile(
    r"\b(?:final\s{1,4}answer|answer)\b[\"'*_`\s]{0,8}(?::|=|\bis\b(?!\s{1,4}not\b)\s{0,4}:?)|答案\s{0,4}(?:：|:|是|为)|\\boxed\s{0,4}\{",
    re.IGNORECASE,
)
_DECORATION = " \t\r\n*_`$\"'"


DENIED = re.compile(
    r"(?:\b(?:not|never|neither|nor|other\s+than|except|(?:any|every)thing\s+but|all\s+but)|n't)\s*[(\[\"'*]*\s*$",
    re.IGNORECASE,
)
"""At the end of what stands before an answer: the answer is the one thing it is not."""


def as_text(value: Any) -> str:
    """The text of a value from a data row: text as it is, nothing for None, JSON for structures."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        return ""


def golds(gold: Any) -> list[str]:
    """The accepted references that are not blank: of a list, of a JSON list of texts, or the one text."""
    if isinstance(gold, str) and gold.lstrip().startswith("[") and len(gold) <= MAX_CHARACTERS:
        try:
            read = json.loads(gold)
        except (ValueError, RecursionError):
            read = None
        if isinstance(read, list) and read and all(isinstance(item, str) for item in read):
            gold = read
    values = gold if isinstance(gold, (list, tuple)) else [gold]
    return [text for text in map(as_text, values) if text.strip()]


def behind_thought(text: str) -> str:
    """What follows the last closing tag of a thought; `""` where a thought was opened and never closed."""
    end = text.rfind(_CLOSE)
    rest = text[end + len(_CLOSE) :] if end >= 0 else text
    if _OPEN in rest:
        return ""
    return _SPECIAL_TOKEN.sub("", rest[-MAX_CHARACTERS:]).strip()


def tagged(text: str) -> str:
    """The content of the last `<answer>` tag behind the thought, else all that stands there."""
    rest = behind_thought(text)
    end = rest.rfind("</answer>")
    start = rest.rfind("<answer>", 0, end if end >= 0 else None)
    if start < 0:
        return rest
    return rest[start + len("<answer>") : end if end >= 0 else None].strip()


def boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{...}`, or None."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len(r"\boxed{")
    for position in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position].strip()
    return None


def announced(text: str) -> str | None:
    """What the last announcement in the text announces: the rest of its line, or the box; None without one."""
    found = list(_ANNOUNCED.finditer(text))
    if not found:
        return None
    last = found[-1]
    if last.group().startswith("\\"):
        return boxed(text)
    rest = text[last.end() :].lstrip(_DECORATION)
    return rest.partition("\n")[0].strip(_DECORATION)


def answer_span(text: str) -> str:
    """The final answer: tag first, then the last box or announcement, else the whole text behind the thought."""
    rest = tagged(text)
    found = announced(rest)
    return rest if found is None else found
