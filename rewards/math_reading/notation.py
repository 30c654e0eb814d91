"""One notation for the readers: Unicode signs and LaTeX ornaments become a small ASCII vocabulary."""

from __future__ import annotations

import re
import unicodedata

from rewards.math_reading.limits import MAX_CHARACTERS, Unreadable

_SIGNS = {
    "−": "-", "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "﹣": "-", "⁃": "-",
    "×": "*", "·": "*", "⋅": "*", "∙": "*", "•": "*", "∗": "*", "÷": "/", "⁄": "/", "∕": "/", "∶": ":",
    "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "≃": r"\approx ",
    "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∈": r"\in ", "∞": r"\infty ", "±": r"\pm ", "∖": r"\setminus ",
    "√": r"\sqrt ", "∛": r"\cbrt ", "°": r"^\circ ", "º": r"^\circ ", "′": "'", "’": "'", "‘": "'", "…": r"\ldots ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": "|", "⟨": r"\langle ",
    "⟩": r"\rangle ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "٫": ".", "٬": ",", "٪": "%", "،": ",", "、": ",", "。": ".", "“": '"', "”": '"', "π": r"\pi ", "µ": "μ",
    "ϵ": r"\epsilon ", "ε": r"\epsilon ", "φ": r"\phi ", "ϕ": r"\phi ", "ι": "ι", "ℓ": "l", "⊤": "^T",
}  # fmt: skip
_GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "zeta",
    "eta",
    "theta",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "sigma",
    "tau",
    "chi",
    "psi",
    "omega",
]
_SIGNS |= {
    unicodedata.lookup(f"GREEK SMALL LETTER {'LAMDA' if n == 'lambda' else n.upper()}"): f"\\{n} " for n in _GREEK
}
_SIGNS |= {
    c: f"\\{n} "
    for c, n in zip(
        "ΓΔΘΛΞΠΣΦΨΩ", ["Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega"], strict=True
    )
}
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u2061\u2062\u2063"
_SUPER = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ"
_SUB = "₀₁₂₃₄₅₆₇₈₉₊₋"
_RUNS = re.compile(f"[{_SUPER}]+|[{_SUB}]+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def _sign(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SIGNS:
        return _SIGNS[character]
    if character in _INVISIBLE:
        return ""
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Zs":
        return " "
    if category == "No" and "⁄" in (plain := unicodedata.normalize("NFKD", character)):
        above, below = plain.split("⁄")
        return f"\\frac{{{above}}}{{{below}}}" if below else character
    if "\uff01" <= character <= "\uff5e":
        return chr(ord(character) - 0xFEE0)
    if category in ("Mn", "Me") and unicodedata.combining(character) in (1, 202, 214, 216, 218, 220, 228, 230):
        raise Unreadable("a struck or marked sign")
    if category in ("Cf", "Cc"):
        raise Unreadable("a hidden sign")
    return character


def fold_unicode(text: str) -> str:
    """Digits of every script, full-width forms, fractions, powers, minus signs and operators in ASCII and LaTeX."""
    if text.isascii():
        return text

    def run(match: re.Match[str]) -> str:
        plain = unicodedata.normalize("NFKC", match[0]).replace("−", "-")
        return ("^{" if match[0][0] in _SUPER else "_{") + plain + "}"

    return _NOT_ASCII.sub(_sign, _RUNS.sub(run, text))


_BRACKETS = {"lbrack": "[", "rbrack": "]", "lbrace": r"\{", "rbrace": r"\}", "lvert": "|", "rvert": "|", "vert": "|",
             "mid": "|", "llcorner": r"\lfloor ", "lrcorner": r"\rfloor ", "ulcorner": r"\lceil ",
             "urcorner": r"\rceil ", "lparen": "(", "rparen": ")"}  # fmt: skip
_RELATIONS = {"le": "<=", "leq": "<=", "leqslant": "<=", "leqq": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=",
              "geqq": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=", "approx": "≈", "simeq": "≈", "sim": "≈",
              "in": "∈", "equiv": "=", "colon": ":"}  # fmt: skip
_OPERATORS = {"cdot": "*", "times": "*", "ast": "*", "div": "/", "cup": "∪", "cap": "∩", "setminus": "∖",
              "pm": "±", "mp": "±", "ldots": "…", "cdots": "…", "dots": "…", "infty": "∞", "varnothing": "∅", 
              "emptyset": "∅"}  # fmt: skip
_RENAMED = {"dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "dbinom": r"\binom", "tbinom": r"\binom",
            "varepsilon": r"\epsilon", "varphi": r"\phi", "vartheta": r"\theta", "degree": r"^\circ",
            "land": ",", "lor": ",", "vee": ","}  # fmt: skip
_DROPPED = (
    "left right mleft mright big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr "
    "displaystyle textstyle limits nolimits middle"
)
_BLANKS = "quad qquad thinspace enspace space"
_WORDS = {n: v for table in (_BRACKETS, _RELATIONS, _OPERATORS, _RENAMED) for n, v in table.items()}
_WORDS |= dict.fromkeys(_DROPPED.split(), "") | dict.fromkeys(_BLANKS.split(), " ")
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?")
_SPACES = re.compile(r"(?<!\\)\\!\s*|\{,\}|(?<!\\)\\([,;:> ])|~|(?<!\\)\\(?=\s|$)")
_MATH = re.compile(r"\\[()\[\]]|\$")
_TEXT = re.compile(
    r"\\(?:text|mathrm|textrm|mbox|textbf|mathbf|operatorname|textit|mathit|hbox|rm|boldsymbol|textnormal|mathsf|bm)"
    r"\s*\*?\s*\{([^{}]*)\}"
)
_CONNECTIVE = re.compile(r"\s*(?:,|;)?\s*\b(?:and|or|und|oder|et|ou|AND|OR|And|Or)\b\s*,?\s*")
_ASSIGNED = re.compile(r"(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])|(?<=[)\]}\d])(?:and|or)(?=[(\[{\d\\-])")

_CHOOSE = re.compile(r"(?<![\w)}\]])[_^]\s*\{?\s*(\d{1,4})\s*\}?\s*C\s*_\s*\{?\s*(\d{1,4})\s*\}?", re.ASCII)


def fold(text: str) -> str:
    """The text in the readers' notation. Raises Unreadable where it is too long or has hidden or struck signs."""
    if len(text) > MAX_CHARACTERS:
        raise Unreadable("too long")
    text = fold_unicode(text).strip()
    text = _MATH.sub(" ", text.replace("\\$", " \x01 ").replace("\\%", "%").replace("\\#", "#").replace("\\&", "&"))
    text = _SPACES.sub(lambda m: "," if m[0] == "{,}" else ("" if m[0].startswith("\\!") else " "), text)
    text = _TEXT.sub(_text, text)
    text = _COMMAND.sub(lambda m: _spelled(m), text)
    text = text.replace("**", "^").replace("==", "=").replace("<>", "!=").replace("≤", "<=").replace("≥", ">=")
    text = text.replace("=<", "<=").replace("=>", ">=").replace("...", "…").replace("{}", "")
    text = _CHOOSE.sub(r"\\binom{\1}{\2}", _ASSIGNED.sub(" , ", text))
    return re.sub(r"\s*\n\s*", " ", text).strip().strip(".;,").strip()


def _spelled(match: re.Match[str]) -> str:
    if match[1] not in _WORDS:
        return match[0]
    word = _WORDS[match[1]]
    return word + " " if word.startswith("\\") and word[-1].isalpha() else word


def _text(match: re.Match[str]) -> str:
    inner = match[1].strip()
    if _CONNECTIVE.fullmatch(inner):
        return " , "
    if inner.lower() in ("percent", "pct", "per cent"):
        return "%"
    # One letter, a number or a function is mathematics in upright type; anything else is a word.
    if len(inner) == 1 or re.fullmatch(r"[-+\d.,/ ]+|\([A-Za-z]\)", inner):
        return inner if match[0].find(" }") < 0 and match[1][:1] != " " else match[1]
    if match[0].startswith("\\operatorname"):
        return f" \\{inner} " if inner.isalpha() else match[0]
    return "\\text{" + match[1] + "}" if inner else " "
