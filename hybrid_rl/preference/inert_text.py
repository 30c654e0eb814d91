"""Text that was sampled, made safe to stand inside a rendered conversation.

A tokenizer reads `<|im_end|>` as the end of a turn also where a policy has spelled it out, letter by letter. An answer
could then end itself and go on as the user, or show images that are not there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class InertText:
    """Takes the meaning from control tokens in a text: a blank is put behind their first character.

    Args:
        tokenizer: its special tokens are control tokens.
        others: further ones, such as the tags of a thought.
    """

    def __init__(self, tokenizer: Any, others: Iterable[str] = ()) -> None:
        added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
        tokens = {*added, *tokenizer.all_special_tokens, *others} - {""}
        longest_first = sorted(tokens, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, text: str) -> str:
        # Tokens may overlap, and then one that is broken leaves another whole.
        while self._pattern.search(text):
            text = self._pattern.sub(_broken, text)
        return text


def _broken(found: re.Match[str]) -> str:
    token = found[0]
    return f"{token[0]} {token[1:]}" if len(token) > 1 else ""
