"""Language consistency: thought and answer in the writing of the question (after DeepSeek-R1, arXiv 2501.12948)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from hybrid_rl.records import Prompt

_MAX_CHARACTERS = 50_000
_MIN_UNITS = 3
# Code and formulas are written in Latin letters in every language, and so are names of variables.
_NEUTRAL = re.compile(
    r"```.{0,20000}?```|`[^`\n]{1,200}`|\$[^$\n]{1,400}\$|\\[A-Za-z]+|https?://\S+|</?[A-Za-z_]{1,20}>", re.DOTALL
)
_KANA = {"HIRAGANA", "KATAKANA"}


def language_consistency(
    prompt: Prompt, thought: str, answer: str | None, well_formed: bool, wants_thought: bool
) -> float | None:
    """Share of thought and answer in the writing of the question, the smaller of the two, in [0, 1].

    Writing is told by Unicode script (Latin, Cyrillic, Han ...), so languages that share one are not told apart. Words
    of scripts with blanks and characters of those without count one each; formulas, code, links and words of one or two
    letters count nothing. None where the question has fewer than three such units.
    """
    question = "\n".join(message.text for message in prompt.messages if message.role == "user")
    script = main_script(question)
    if script is None:
        return None
    parts = [thought, answer or ""] if wants_thought else [answer or ""]
    return min(script_share(part, script) for part in parts)


def main_script(text: str) -> str | None:
    """The most frequent script of a text, or None if it has hardly any words. Kana make a text Japanese."""
    units = _units(text)
    if units.total() < _MIN_UNITS:
        return None
    if sum(units[name] for name in _KANA) >= 0.1 * units.total():
        return "KANA"
    return units.most_common(1)[0][0]


def script_share(text: str, script: str) -> float:
    """Share of a text's words in a script; 1 for a text without words, such as a number."""
    units = _units(text)
    if not units:
        return 1.0
    own = _KANA | {"CJK"} if script == "KANA" else {script}
    return sum(units[name] for name in own) / units.total()


def _units(text: str) -> Counter[str]:
    units: Counter[str] = Counter()
    text = _NEUTRAL.sub(" ", text[:_MAX_CHARACTERS])
    word, length = "", 0
    for sign in f"{text} ":
        script = _script(sign)
        if script == word and word:
            length += 1
            continue
        # Two letters are more often a variable than a word.
        if word and length > 2:
            units[word] += 1
        word, length = "", 0
        if script in _KANA or script == "CJK":
            units[script] += 1
        elif script:
            word, length = script, 1
    return units


@lru_cache(maxsize=8192)
def _script(sign: str) -> str:
    """The script of a letter, as its Unicode name begins; `""` for everything else."""
    if not sign.isalpha():
        return ""
    return unicodedata.name(sign, "").partition(" ")[0].partition("-")[0]
