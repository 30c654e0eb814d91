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

    plainest: Rewrite
    rewrite: Rewrite


def _around(*pairs: tuple[str, str]) -> Mutation:
    """Something before and behind the answer; the first pair is the plainest."""

    def write(random: Random, text: str) -> str:
        before, after = random.choice(pairs)
        return before + text + after

    return Mutation(lambda _, text: pairs[0][0] + text + pairs[0][1], write)


def _blanks(random: Random, text: str) -> str:
    before, after = ("".join(random.choices(" \t\n", k=random.randint(0, 4))) for _ in range(2))
    return f"{before}{text}{after} "


def _unicode_blanks(random: Random, text: str) -> str:
    before, after = ("".join(random.choices("\u00a0\u2009\u3000\u202f ", k=random.randint(0, 2))) for _ in range(2))
    return f"{before}{text}{after}\u00a0"


def _inner_blanks(random: Random, text: str) -> str | None:
    pieces = re.split(r"(?<=\S) (?=\S)", text)
    joined = "".join(piece + random.choice(("  ", "   ", " \t")) for piece in pieces[:-1]) + pieces[-1]
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


def _thin_spaces(_: Random, text: str) -> str | None:
    return _if_formula(text, lambda sign: f"{sign[1]}\\quad\\:")


def _plain_spaces(random: Random, text: str) -> str | None:
    return _if_formula(text, lambda sign: f"{random.choice((' ', '  ', ''))}{sign[1]}{random.choice((' ', '  '))}")


def _one_space(_: Random, text: str) -> str | None:
    return _if_formula(text, lambda sign: f" {sign[1]} ")


def _if_formula(text: str, spaced: Callable[[re.Match[str]], str]) -> str | None:
    if not re.search(r"[\\^]", text) or "<table" in text:
        return None
    changed = _FORMULA.sub(spaced, text)
    return changed if changed != text else None


def _zeros(random: Random, text: str) -> str | None:
    """Further zeros behind the point."""
    if re.fullmatch(r"-?\d{1,15}", text):
        return text + random.choice((".0", ".00", ".000"))
    return text + random.choice(("0", "00")) if re.fullmatch(r"-?\d{1,9}\.\d{1,9}", text) else None


def _one_zero(_: Random, text: str) -> str | None:
    return _zeros(_Always(), text)


def _grouped(_: Random, text: str) -> str | None:
    """Thousands separators."""
    return f"{int(text):,}" if re.fullmatch(r"-?[1-9]\d{3,14}", text) else None


def _fractions(random: Random, text: str) -> str | None:
    """A fraction of two integers in the other notation, and decimals as one."""
    if re.fullmatch(r"-?\d{1,9}\.\d{1,9}", text):
        value = Fraction(text)
        return random.choice(
            (f"{value.numerator}/{value.denominator}", f"\\frac{{{value.numerator}}}{{{value.denominator}}}")
        )
    if parts := re.fullmatch(r"(-?)(?:\\d?frac\{(\d+)\}\{(\d+)\}|(\d+)/(\d+))", text):
        sign, above, below = parts[1], parts[2] or parts[4], parts[3] or parts[5]
        forms = (
            f"{sign}{above}/{below}",
            f"{sign}\\frac{{{above}}}{{{below}}}",
            f"{sign}\\dfrac{{{above}}}{{{below}}}",
        )
        return random.choice([form for form in forms if form != text])
    return None


def _plain_fraction(_: Random, text: str) -> str | None:
    return _fractions(_Always(), text)


def _case(random: Random, text: str) -> str | None:
    changed = random.choice((text.upper(), text.lower(), text.title(), text.swapcase()))
    return changed if changed != text and changed.casefold() == text.casefold() else None


def _upper(_: Random, text: str) -> str | None:
    changed = text.upper()
    return changed if changed != text and changed.casefold() == text.casefold() else None


def _after_thought(random: Random, text: str) -> str:
    return f"<think>{words(random, random.randint(0, 30))}</think>\n{text}"


MUTATIONS: Mapping[str, Mutation] = {
    "blanks": Mutation(lambda _, text: f" {text}\n", _blanks),
    "unicode_blanks": Mutation(lambda _, text: f"{text}\u00a0", _unicode_blanks),
    "inner_blanks": Mutation(_doubled_blanks, _inner_blanks),
    "period": _around(("", "."), ("", ".\n"), ("", ". ")),
    "boxed": _around(("\\boxed{", "}"), ("$\\boxed{", "}$"), ("\\boxed{ ", " }")),
    "dollars": _around(("$", "$"), ("$$", "$$"), ("$ ", " $")),
    "parentheses": _around(("\\(", "\\)"), ("\\( ", " \\)"), ("\\[", "\\]")),
    "bold": _around(("**", "**")),
    "announced": _around(
        ("The answer is ", "."),
        ("The answer is ", ""),
        ("Answer: ", ""),
        ("Final answer: ", ""),
        ("So the final answer is ", "."),
        ("The answer is: ", "."),
    ),
    "full_width": Mutation(_all_full_width, _full_width),
    "digits": Mutation(_arabic_digits, _other_digits),
    "minus": Mutation(_minus, _minus),
    "spaces": Mutation(_one_space, _plain_spaces),
    "latex_spaces": Mutation(_thin_spaces, _latex_spaces),
    "zeros": Mutation(_one_zero, _zeros),
    "grouped": Mutation(_grouped, _grouped),
    "fractions": Mutation(_plain_fraction, _fractions),
    "case": Mutation(_upper, _case),
    "after_thought": Mutation(lambda _, text: f"<think>so</think>{text}", _after_thought),
}
"""By class. `boxed`, `announced` and the like put something around the answer; the others rewrite it."""
