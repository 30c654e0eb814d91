"""Text that a model wrote, fenced so that it can be judged and not obeyed."""

from __future__ import annotations

import re
import secrets

# Chat servers read control tokens wherever they stand in a message (transformers issue 29279), so a response could end
# its own turn. All that are known open with one of these brackets and no blank behind it.
_TOKEN_OPENINGS = re.compile(r"<(?=[^\s=])|\[(?=[A-Za-z/])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_REPLACEMENT = "\ufffd"


def new_mark() -> str:
    """128 random bits in hexadecimal; who wrote the text before cannot know it."""
    return secrets.token_hex(16)


def fenced(name: str, text: str, mark: str) -> str:
    """The text between two lines that carry the mark."""
    return f"{opening(name, mark)}\n{harmless(text)}\n{closing(name, mark)}"


def opening(name: str, mark: str) -> str:
    return f"-----BEGIN {name} {mark}-----"


def closing(name: str, mark: str) -> str:
    return f"-----END {name} {mark}-----"


def harmless(text: str) -> str:
    """The text with a blank behind `<` and `[`, so that it holds no control token, and without control characters."""
    whole = text.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair is no UTF-8
    return _TOKEN_OPENINGS.sub(lambda found: f"{found.group()} ", _CONTROL.sub(_REPLACEMENT, whole))
