"""Ways of writing an answer that leave what it says alone. Each draws from its own generator, so a seed repeats a run.

A class is claimed by a reward that accepts the plainest form of it; then it must accept the other forms too.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from random import Random

from hybrid_rl.authoring.noise import words

Rewrite = Callable[[Random, str], str | None]
"""(generator, answer) -> the answer written otherwise; None where the class does not apply to it."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """A class of mutations.

    Attributes:
        plainest: the form by which a reward claims the class.
        rewrite: any form of it.
    """

    summary: str
    plainest: Rewrite
    rewrite: Rewrite


def _around(*pairs: tuple[str, str]) -> Mutation:
    """Something before and behind the answer; the first pair is the plainest."""

    def write(pair: tuple[str, str], text: str) -> str:
        return pair[0] + text + pair[1]

    shown = "x".join(pairs[0]).strip()
    return Mutation(
        shown, lambda _, text: write(pairs[0], text), lambda random, text: write(random.choice(pairs), text)
    )


def _blanks(random: Random, text: str) -> str:
    before, after = ("".join(random.choices(" \t\n", k=random.randint(0, 4))) for _ in range(2))
    return f"{before}{text}{after} "


def _unicode_blanks(random: Random, text: str) -> str:
    before, after = ("".join(random.choices("\u00a0\u2009\u3000\u202f ", k=random.randint(0, 2))) for _ in range(2))
    return f"{before}{text}{after}\u00a0"


def _inner_blanks(random: Random, text: str) -> str | None:
    pieces = re.split(r"(?<=\S) (?=\S)", text)
    joined = "".join(piece + random.choice(("  ", "   ", " \t", "\n")) for piece in pieces[:-1]) + pieces[-1]
    return joined if len(pieces) > 1 else None


def _doubled_blanks(_: Random, text: str) -> str | None:
    changed = re.sub(r"(?<=\S) (?=\S)", "  ", text)
    return changed if changed != text else None


def _full_width(random: Random, text: str) -> str | None:
    """Some printable ASCII characters as their full-width forms. A text with markup means its ASCII characters."""
    if re.search(r"[\\<>{}\[\]_^]", text):
        return None
    changed = "".join(chr(ord(c) + 0xFEE0) if "!" < c <= "~" and random.random() < 0.5 else c for c in text)
    return changed if changed != text else None


def _all_full_width(_: Random, text: str) -> str | None:
    return _full_width(_Always(), text)


class _Always(Random):
    def random(self) -> float:
        return 0.0


_ZEROS = [chr(code) for code in range(0x600, 0x1000) if unicodedata.digit(chr(code), None) == 0]


def _other_digits(random: Random, text: str) -> str | None:
    """All digits of a plain number in one other script."""
    if not re.fullmatch(r"[-+]?\d+", text):
        return None
    zero = ord(random.choice(_ZEROS))
    return re.sub(r"\d", lambda digit: chr(zero + int(digit[0])), text)


def _arabic_digits(_: Random, text: str) -> str | None:
    if not re.fullmatch(r"[-+]?\d+", text):
        return None
    return re.sub(r"\d", lambda digit: chr(0x660 + int(digit[0])), text)


def _minus(random: Random, text: str) -> str | None:
    return "\u2212" + text[1:] if re.fullmatch(r"-\d[\d.]*", text) else None


_FORMULA = re.compile(r"(?<=[\w)}])\s*([-+=<>])\s*(?=[\w(\\])")


def _latex_spaces(random: Random, text: str) -> str | None:
    """Spaces of LaTeX around the signs of a formula, which print nothing but white."""

    def spaced(sign: re.Match[str]) -> str:
        before, after = random.choices(("\\,", "\\;", "\\ ", " ", "\\:", "\\quad ", ""), k=2)
        return f"{before}{sign[1]}{after}"

    return _if_formula(text, spaced)


def _plain_spaces(_: Random, text: str) -> str | None:
    return _if_formula(text, lambda sign: f" {sign[1]} ")


def _if_formula(text: str, spaced: Callable[[re.Match[str]], str]) -> str | None:
    if not re.search(r"[\\^]", text) or "<table" in text:
        return None
    changed = _FORMULA.sub(spaced, text)
    return changed if changed != text else None


def _same_number(random: Random, text: str) -> str | None:
    """Another way of writing an integer, a decimal or a fraction."""
    if whole := re.fullmatch(r"(-?)(\d{1,15})", text):
        grouped = f"{int(whole[2]):,}"
        forms = [f"{text}.0", f"{text}.00", grouped and whole[1] + grouped, f"{whole[1]}0{whole[2]}"]
        return random.choice([form for form in forms if form != text])
    if re.fullmatch(r"-?\d{1,9}\.\d{1,9}", text):
        value = Fraction(text)
        return random.choice([f"{text}0", f"{text}00", f"{value.numerator}/{value.denominator}"])
    if parts := re.fullmatch(r"(-?)(?:\\d?frac\{(\d+)\}\{(\d+)\}|(\d+)/(\d+))", text):
        sign, above, below = parts[1], parts[2] or parts[4], parts[3] or parts[5]
        return random.choice(
            [f"{sign}{above}/{below}", f"{sign}\\frac{{{above}}}{{{below}}}", f"{sign}{above} / {below}"]
        )
    return None


def _with_zero(_: Random, text: str) -> str | None:
    return f"{text}.0" if re.fullmatch(r"-?\d{1,15}", text) else None


def _case(random: Random, text: str) -> str | None:
    changed = random.choice((text.upper(), text.lower(), text.title(), text.swapcase()))
    return changed if changed != text and changed.casefold() == text.casefold() else None


def _upper(_: Random, text: str) -> str | None:
    changed = text.upper()
    return changed if changed != text and changed.casefold() == text.casefold() else None


def _after_thought(random: Random, text: str) -> str:
    return f"<think>{words(random, random.randint(0, 30))}</think>\n{text}"


MUTATIONS: Mapping[str, Mutation] = {
    "blanks": Mutation("blanks around", lambda _, text: f" {text}\n", _blanks),
    "unicode_blanks": Mutation("other blanks around", lambda _, text: f"{text}\u00a0", _unicode_blanks),
    "inner_blanks": Mutation("wider blanks inside", _doubled_blanks, _inner_blanks),
    "period": _around(("", "."), ("", " ."), ("", ".\n")),
    "boxed": _around(("\\boxed{", "}"), ("$\\boxed{", "}$"), ("\\boxed{ ", " }"), ("\\[\\boxed{", "}\\]")),
    "dollars": _around(("$", "$"), ("$$", "$$"), ("\\(", "\\)"), ("$ ", " $")),
    "bold": _around(("**", "**")),
    "announced": _around(
        ("The answer is ", "."),
        ("The answer is ", ""),
        ("Answer: ", ""),
        ("Final answer: ", ""),
        ("So the final answer is ", "."),
        ("The answer is: ", "."),
    ),
    "full_width": Mutation("full-width characters", _all_full_width, _full_width),
    "digits": Mutation("digits of another script", _arabic_digits, _other_digits),
    "minus": Mutation("the sign U+2212", _minus, _minus),
    "latex_spaces": Mutation("spaces around signs", _plain_spaces, _latex_spaces),
    "number_forms": Mutation("another form of the number", _with_zero, _same_number),
    "case": Mutation("upper and lower case", _upper, _case),
    "after_thought": Mutation("behind a thought", lambda _, text: f"<think>so</think>{text}", _after_thought),
}
