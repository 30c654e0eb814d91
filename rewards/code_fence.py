"""An answer that is shown as code: in a fenced block or between backticks. A program is no answer."""

from __future__ import annotations

import re

_FENCED = re.compile(r"```(?:([\w+#.-]*)[ \t]*\n)?(.*?)(?:```|\Z)", re.DOTALL)
_NO_PROGRAM = frozenset({"", "text", "txt", "plain", "plaintext", "math", "latex", "tex", "output"})


def shown(text: str) -> str:
    """The text with blocks of one line as that line, where no programming language is named; other blocks go."""

    def content(block: re.Match[str]) -> str:
        inner = block[2].strip()
        is_answer = (block[1] or "").lower() in _NO_PROGRAM and "\n" not in inner
        return f"\n{inner}\n" if is_answer else " "

    return _FENCED.sub(content, text) if "```" in text else text


def bare(text: str) -> str:
    """What stands in a text that is nothing but such a block, or code between backticks; else the text."""
    block = _FENCED.fullmatch(text)
    if block:
        return shown(text).strip() or text
    inline = re.fullmatch(r"`([^`\n]+)`", text)
    return inline[1].strip() if inline else text
