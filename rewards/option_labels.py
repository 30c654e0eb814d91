"""Labels of options (A, B, C; I, II, III; 1, 2, 3) and where a text names them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Behind a leading "A" or "I" these words speak of a label; any other word makes it an article or a pronoun.
_SPEAKS_OF_A_LABEL = re.compile(
    r"\s+(?:is|are|was|because|since|as|per|and|or|but|by|for|not|would|should|must|seems|fits|holds|follows)\b",
)
_NEGATED = re.compile(
    r"(?:\bnot|n't|\bnever|\bneither|\bnor|\bother than|\bexcept|\b(?:\w+thing|all) but|不是|不选|排除|并非)"
    r"\s*(?:\boption\s+)?[(\[]?\s*$",
    re.IGNORECASE,
)
_REFUTED = re.compile(
    r"[)\]]?\s*(?:(?:is|are|was|must be|seems)\s+(?:not\b|wrong|incorrect|false|out\b|impossible)|不对|是错|错误)",
    re.IGNORECASE,
)
_AROUND_SEVERAL = re.compile(r"^(?:[Bb]oth\s+|[(\[](?=\s?\w+\s?[,、，]))")
_JOIN = r"\s*(?:,|;|/|&|、|\band\b|和|与|及|\s)\s*"
# `Vitamin C`, `Plan B`: part of a name.
_NAMED_AFTER = re.compile(r"\b[A-Z][a-z]+(?<!ly)\s$")
_OR = re.compile(r"[)\]]?\s*(?:,\s*|\()?(?:\bor\b|或者?|还是)\s*(?:option\s+)?[(\[]?\s*(?:[A-Z]|\d)", re.IGNORECASE)


def option_labels(choices: Sequence[str] | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """The labels of the choices, and the options' texts by label; no texts where the choices are labels themselves."""
    if not choices:
        return tuple(_LETTERS[:10]), {}
    given = [str(choice).strip().strip("().") for choice in choices]
    count = len(given)
    for row in (tuple(_LETTERS), _ROMAN, tuple(str(n) for n in range(1, 27)), tuple(str(n) for n in range(26))):
        if tuple(text.upper() for text in given) == row[:count]:
            return row[:count], {}
    labels = tuple(_LETTERS[:count])
    return labels, dict(zip(labels, map(str, choices), strict=False))


class LabelReader:
    """Finds labels in text.

    Args:
        labels: distinct labels in upper case, or digits.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        one = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True))
        self._letters = all(len(label) == 1 and label.isalpha() for label in labels)
        bare = rf"(?:{one})(?![A-Za-z0-9])(?!['’]\w)(?!-[a-z])"
        # In brackets a label may be in lower case; a lone `a` is a word.
        wrapped = rf"(?<!\w)\(\s?(?i:{one})\s?\)|(?<!\w)\[\s?(?i:{one})\s?\]|(?<![A-Za-z0-9(])(?i:{one})\)"
        wrapped += rf"|(?<![A-Za-z0-9]){bare}\)?"
        self._item = re.compile(wrapped)
        self._any_case = re.compile(wrapped, re.IGNORECASE)
        self._label = re.compile(one, re.IGNORECASE)
        # `ACD`: several letters run together.
        self._joined = re.compile(rf"[{one.replace('|', '')}]{{2,26}}(?![A-Za-z0-9])") if self._letters else None
        self._separator = re.compile(_JOIN)

    def whole(self, text: str) -> frozenset[str] | None:
        """The labels of a text that has nothing else: `B`, `(b).`, `A, C`, `DCA`, `[A][B]`; None otherwise."""
        text = text.strip().strip("\"'“”{}").rstrip(".。!,;:").strip()
        if text.startswith("(") and text.endswith(")") and not self._any_case.fullmatch(text):
            text = text[1:-1].strip()
        if len(text) > 200:
            return None
        found, end = self._sequence(text, self._any_case)
        return found if found and end == len(text) else None

    def behind_marker(self, text: str) -> frozenset[str] | None:
        """The labels right behind a marker, or None if something else stands there or the choice is left open."""
        text = text.lstrip(" \t\r\n:：=\"'“”{.-—>").removeprefix("option ").removeprefix("Option ")
        # A bracket around several labels, and `both` in front of two.
        text = _AROUND_SEVERAL.sub("", text, count=1)
        found = self._start(text)
        if found is None:
            # A lower-case letter is a label only where nothing but a sign follows.
            line = text.partition("\n")[0].partition("}")[0]
            lone = re.match(r"\(?(\w{1,4})\)?\s*(?:[.,;:。，}\"']|$)", line)
            found = self.whole(lone.group(1)) if lone else None
        return found

    def leading(self, text: str) -> frozenset[str] | None:
        """The labels at the start of a text, if they are set off from it: `B. Because ...`, `B不是 A`."""
        return self._start(_AROUND_SEVERAL.sub("", text, count=1), bare_only=True)

    def named(self, text: str) -> frozenset[str] | None:
        """All labels that a text names and does not rule out."""
        found = set()
        for item in self._item.finditer(text):
            before = text[max(0, item.start() - 24) : item.start()]
            if self._is_word(item.group(), text[item.end() :]) or _NEGATED.search(before):
                continue
            if _NAMED_AFTER.search(before):
                continue
            if not _REFUTED.match(text[item.end() :]):
                found |= self._labels(item.group())
        return frozenset(found) or None

    def _start(self, text: str, *, bare_only: bool = False) -> frozenset[str] | None:
        found, end = self._sequence(text, self._item)
        if not found:
            return None
        rest = text[end:]
        if _REFUTED.match(rest):
            return None
        if _OR.match(rest):
            return frozenset()  # left open: no choice, and no other reading either
        if len(found) == 1 and self._is_word(text[:end], rest):
            return None
        if bare_only and len(found) == 1 and re.match(r"\s+\w", rest, re.ASCII) and text[end - 1] not in ")]":
            return found if _SPEAKS_OF_A_LABEL.match(rest) else None
        return found

    def _sequence(self, text: str, item: re.Pattern[str]) -> tuple[frozenset[str], int]:
        found: set[str] = set()
        position = end = 0
        while True:
            joined = self._joined.match(text, position) if self._joined else None
            if joined and len(set(joined.group())) == len(joined.group()):
                found |= set(joined.group())
                position = end = joined.end()
            elif match := item.match(text, position):
                if found and self._is_word(match.group(), text[match.end() :]):
                    break
                if found and _REFUTED.match(text[match.end() :]):
                    break
                found |= self._labels(match.group())
                position = end = match.end()
            else:
                break
            separator = self._separator.match(text, position)
            position = separator.end() if separator else position
            if not separator and text[position : position + 1] not in ("(", "["):
                break
        return frozenset(found), end

    def _labels(self, item: str) -> set[str]:
        return {item.strip("()[] ").upper()}

    def _is_word(self, item: str, rest: str) -> bool:
        """Whether what looks like a label is the article "A" or the pronoun "I"."""
        return (
            item.strip() in ("A", "I") and bool(re.match(r"\s+[a-z]|['’]", rest)) and not _SPEAKS_OF_A_LABEL.match(rest)
        )
