"""Texts that no one would write: whatever a reward is given, it has to end in time and without an exception."""

from __future__ import annotations

import json
from random import Random

_LATEX = (
    "\\frac{", "\\sqrt{", "\\boxed{", "\\text{", "\\left(", "\\right)", "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\",
    "&", "}", "{", "^", "_", "^{", "_{", "+", "-", "*", "/", "=", "<", "\\le ", "\\in ", "\\cup ", "(", ")", "[", "]",
    ",", ";", "!", "\\%", "%", "\\pi", "\\infty", "\\sin ", "\\log_", "e", "i", "x", "y", "0", "1", "7", "12", "0.5",
    "10^", "9^9^", "\\cdot ", "\\times ", "\\pm ", "|", "\\lvert ", "$", "\\(", "\\)", "\\,", " ", "°", "√", "½", "²",
    "\\binom{5}{2}", "\\sum_{n=1}^{", "\\int_0^1 ", "\\overline{3}", "\\mathbb{R}", "\\circ", "km", "\\text{ cm}",
    "\\angle ", "**", "∞",
)  # fmt: skip
_WORDS = (
    "the", "answer", "is", "not", "or", "and", "red", "apple", "twelve", "12", "42", "0.5", "yes", "no", "A", "B)",
    "(C)", "Answer:", "final", "km", "$3", "50%", "between", "less", "than", "x", "=", "is:", "Paris", "Zürich", "三",
    "答案", "是", "1,000", "3/4", "because", "so", "option", "none", "all", "of", "above", "true", "False", "-7", "1e9",
    "Ω", "µm",
)  # fmt: skip
_TAGS = (
    "<think>", "</think>", "<answer>", "</answer>", "<table>", "</table>", "<tr>", "</tr>", "<td>", "</td>",
    "<td colspan=", "<td rowspan='99999'>", "<th>", "<thead>", "<!--", "-->", "&amp;", "&#0;", "<br>", "<|im_end|>",
    "</s>", "```", "```json", "1", "x", "12", "\n", "\"", "'", ">",
)  # fmt: skip
_JSON = (
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"a"',
    '"bbox_2d"',
    "1",
    "2.5",
    "-3e9",
    "1e400",
    "null",
    "true",
    '""',
    " ",
    "NaN",
    "\\",
)
_ALPHABETS = (
    "0123456789",
    "0123456789.,-+e/% ",
    "abcXYZ ",
    "\t\n \u00a0\u3000\u200b",
    "٠١٢३४۵१２３½²³",
    "(){}[]<>|\\$^_&#%~",
)


_FILLERS = (
    "the",
    "of",
    "sun",
    "table",
    "line",
    "above",
    "on",
    "red",
    "under",
    "with",
    "small",
    "grow",
    "river",
    "leaf",
)


def words(random: Random, count: int) -> str:
    """That many words that are no answers."""
    return " ".join(random.choices(_FILLERS, k=count))


def noise(random: Random, near: str) -> str:
    """A text of one of a dozen kinds; `near`: a right answer, of which some of them are made."""
    kind = random.randrange(12)
    if kind < 3:
        return "".join(random.choices(_LATEX, k=_length(random)))
    if kind == 3:
        return " ".join(random.choices(_WORDS, k=_length(random)))
    if kind == 4:
        return "".join(random.choices(_TAGS, k=_length(random)))
    if kind == 5:
        return "".join(random.choices(_JSON, k=_length(random)))
    if kind == 6:
        return "".join(random.choices(random.choice(_ALPHABETS), k=_length(random)))
    if kind == 7:
        return "".join(
            chr(random.randrange(0x110000)) for _ in range(random.randint(1, 60))
        )  # halves of characters too
    if kind == 8:
        return random.choice((*_LATEX, *_TAGS, *_JSON, "9", "1 ", near)) * random.choice((2, 10, 100, 1000, 10_000))
    if kind == 9:
        return json.dumps(_value(random, 4), ensure_ascii=random.random() < 0.5)
    return _spoiled(random, near)


def _length(random: Random) -> int:
    return min(int(random.expovariate(1 / 12)) + 1, 400)


def _spoiled(random: Random, near: str) -> str:
    """The right answer with characters lost, doubled, changed, or something strange put in."""
    pieces = list(near)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(pieces))
        match random.randrange(4):
            case 0:
                del pieces[at : at + 1]
            case 1:
                pieces[at:at] = pieces[at : at + random.randint(1, 5)]
            case 2:
                pieces.insert(at, random.choice((*_LATEX, *_WORDS)))
            case _:
                pieces[at : at + 1] = [chr(random.randrange(0x20, 0x3000))]
    return "".join(pieces)


def _value(random: Random, depth: int) -> object:
    """A JSON value."""
    kind = random.randrange(7 if depth else 5)
    if kind == 5:
        return [_value(random, depth - 1) for _ in range(random.randint(0, 5))]
    if kind == 6:
        return {random.choice(_WORDS): _value(random, depth - 1) for _ in range(random.randint(0, 4))}
    return (None, random.random() < 0.5, random.randint(-(10**9), 10**9), random.gauss(0, 1e3), random.choice(_WORDS))[
        kind
    ]
