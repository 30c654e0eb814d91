"""Foreign text made harmless for a screen: what a model wrote may hold terminal codes, half characters, reversed text.

HTML escaping is Jinja's business; this is about characters that no escaping covers.
"""

from __future__ import annotations

import re

_SPECIAL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline: they drive a terminal
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # reorder or hide the text around them
    "\ud800-\udfff\ufffe\uffff]"  # halves of characters: cannot be written as UTF-8, or not allowed in XML
)


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # the "control pictures": ESC becomes a small readable sign
    if code == 0x7F:
        return "\u2421"
    if 0xD800 <= code <= 0xDFFF or code >= 0xFFFE:
        return "\ufffd"
    return f"⟨U+{code:04X}⟩"


def visible(text: object) -> str:
    """The text with every character that could act replaced by a sign that only shows; newlines and tabs stay."""
    return _SPECIAL.sub(_picture, str(text).replace("\r\n", "\n"))


def one_line(text: object) -> str:
    """As `visible`, on a single line."""
    return " ".join(re.split(r"[\n\t\u2028\u2029]+", visible(text).strip()))


def shorten(text: str, limit: int) -> str:
    """Keep the beginning and the end of a long text: a thought's last lines explain its answer."""
    if len(text) <= limit:
        return text
    head, tail = limit * 2 // 3, limit // 3
    return f"{text[:head]}\n[… {len(text) - head - tail:,} characters left out …]\n{text[-tail:]}"
