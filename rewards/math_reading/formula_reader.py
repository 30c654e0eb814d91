"""The first reader: LaTeX, plain and computer-algebra notation in one grammar, by recursive descent.

Every character is read or the text is refused; nothing is evaluated. Input is folded text (`notation.fold`).
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.math_reading.exact_numbers import number_at
from rewards.math_reading.limits import Unreadable
from rewards.math_reading.special_forms import SpecialForms
from rewards.math_reading.structure_forms import StructureForms
from rewards.math_reading.tree import Call, Node, Num, Struct, Sym
from rewards.math_reading.vocabulary import CONSTANTS, FUNCTIONS, GREEK, PLAIN_FUNCTIONS, UNKNOWN_FUNCTIONS

_NO_FACTOR = re.compile(r"\\(?:\\|(?:choose|end|rfloor|rceil|rangle|over)\b)")
_DEGREE = re.compile(r"\s*(?:\{\s*\\circ\s*\}|\\circ)")
_POSTFIX = re.compile(r"\s*(?:\{\s*(?:\\top|T|\\prime)\s*\}|\\top\b|\\prime\b|T\b)")
_BASE = re.compile(r"\{\s*(\d+)\s*\}|(\d)")
_LABEL = re.compile(r"\{?\s*\\text\{([A-Za-z0-9 ]+)\}\s*\}?")
_APPLIED = re.compile(r"\(|\{ *\(")
_LETTERS = re.compile(r"[A-Za-z]+")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_PLAIN_FRACTION = re.compile(r" (\d+)/(\d+)(?![\d.])", re.ASCII)


class FormulaReader(SpecialForms, StructureForms):
    """Reads one folded text; `read` gives its tree."""

    def read(self) -> Node:
        """The tree of the whole text. Raises Unreadable."""
        node = self.listing("list")
        self.blank()
        if self.at != len(self.text):
            raise Unreadable(f"'{self.text[self.at : self.at + 10]}' is not understood")
        return node

    def sum(self) -> Node:
        self.deeper()
        node = self.term() if self.peek() not in ("+", "-", "±") else None
        while (sign := self.peek()) in ("+", "-", "±"):
            self.at += 1
            self.count()
            term = self.term()
            if sign == "±":
                node = Struct("pm", (node or Num(Fraction(0)), term))
            elif sign == "-":
                node = _negative(term) if node is None else Call("+", (node, Call("neg", (term,))))
            else:
                node = term if node is None else Call("+", (node, term))
        self.depth -= 1
        if node is None:
            raise Unreadable("empty")
        return node

    def term(self) -> Node:
        node = self.signed_factor()
        while True:
            before = self.at
            sign = self.peek()
            if sign in ("*", "/"):
                self.at += 1
                node = Call(sign, (node, self.signed_factor()))
            elif self.text.startswith("\\choose", self.at):
                self.at += len("\\choose")
                node = Call("binomial", (node, self.signed_factor()))
            elif self.begins_factor():
                # `1 2` is no product: a reader that joins or multiplies them invents a number.
                if sign.isdigit() and (self.text[before - 1].isdigit() or isinstance(node, Num)):
                    raise Unreadable("two numbers without a sign between them")
                node = Call("*", (node, self.factor()))
            else:
                self.at = before
                return node
            self.count()

    def signed_factor(self) -> Node:
        sign = self.peek()
        if sign and sign in "+-":
            self.at += 1
            self.deeper()
            inner = self.signed_factor()
            self.depth -= 1
            return _negative(inner) if sign == "-" else inner
        return self.factor()

    def begins_factor(self) -> bool:
        sign = self.peek()
        if not sign:
            return False
        if sign == "\\":
            return not re.match(
                r"\\(?:\\|(?:choose|end|rfloor|rceil|rangle|over)\b)", self.text[self.at : self.at + 10]
            )
        return sign.isalnum() or sign in ("(", "[", "{", "\\{", ".", "∞", "…", "∅") or (sign == "|" and not self.bars)

    def factor(self) -> Node:
        """An atom with its powers, subscripts, factorials, percents and primes."""
        self.deeper()
        self.count()
        node = self.atom()
        while True:
            self.blank()
            if self.text.startswith("!", self.at) and not self.text.startswith("!=", self.at):
                self.at += 1
                node = Call("factorial", (node,))
            elif self.take("%"):
                node = Call("/", (node, Num(Fraction(100))))
            elif self.text.startswith("'", self.at):
                self.at += 1
                node = Call("fn:prime", (node,))
            elif self.text.startswith("^", self.at):
                node = self.power_of(node)
            elif self.text.startswith("_", self.at):
                node = self.subscript_of(node)
            else:
                break
            self.count()
        self.depth -= 1
        return node

    def power_of(self, base: Node) -> Node:
        self.at += 1
        if degree := _DEGREE.match(self.text, self.at):
            self.at = degree.end()
            return base
        if match := _POSTFIX.match(self.text, self.at):
            self.at = match.end()
            return Call("fn:prime" if "prime" in match[0] else "transpose", (base,))
        return Call("^", (base, self.exponent()))

    def exponent(self) -> Node:
        sign = self.peek()
        if sign and sign in "+-":
            self.at += 1
            inner = self.exponent()
            return _negative(inner) if sign == "-" else inner
        self.deeper()
        node = self.atom()
        self.blank()
        while self.text.startswith("!", self.at) and not self.text.startswith("!=", self.at):
            self.at += 1
            node = Call("factorial", (node,))
        if self.text.startswith("^", self.at):  # a^b^c is a^(b^c)
            node = self.power_of(node)
        self.depth -= 1
        return node

    def subscript_of(self, node: Node) -> Node:
        if isinstance(node, Call) and node.name == "^":  # x^2_1 is (x_1)^2
            return Call("^", (self.subscript_of(node.args[0]), node.args[1]))
        self.at += 1
        self.blank()
        match = _BASE.match(self.text, self.at)
        if isinstance(node, Num) and match:
            self.at = match.end()
            base = int(match[1] or match[2])
            digits = str(node.value)
            if not 2 <= base <= 36 or not digits.isdigit() or any(int(d) >= base for d in digits):
                raise Unreadable("not a number in that base")
            return Struct("base", (Num(Fraction(int(digits, base))),), f"{digits}_{base}")
        if match and match[2]:
            self.at = match.end()
            return Call(f"at:{_name(node)}", (Num(Fraction(int(match[2]))),))
        if label := _LABEL.match(self.text, self.at):
            self.at = label.end()
            return Sym(f"{_name(node)}_{label[1].strip()}")
        return Call(f"at:{_name(node)}", (self.atom(),))

    def atom(self) -> Node:
        sign = self.peek()
        if not sign:
            raise Unreadable("something is missing at the end")
        if sign.isdigit() or sign == ".":
            return self.number()
        if sign in ("(", "[", "{", "\\{"):
            return self.bracket(sign)
        if sign == "|":
            self.at += 1
            self.bars += 1
            inner = self.sum()
            self.bars -= 1
            self.expect("|")
            return Call("abs", (inner,))
        if sign in ("∞", "…", "∅"):
            self.at += 1
            return Struct("set", ()) if sign == "∅" else Sym("oo" if sign == "∞" else "…")
        if sign == "\\":
            return self.command()
        if match := _LETTERS.match(self.text, self.at):
            return self.word(match[0])
        raise Unreadable(f"'{sign}' is not understood")

    def number(self) -> Node:
        found = number_at(self.text, self.at, commas=self.commas and not self.brackets)
        if not found:
            raise Unreadable("not a number")
        number, self.at = found
        match = _PLAIN_FRACTION.match(self.text, self.at)  # 1 1/2
        if match and int(match[2]) and number.places is None:
            self.at = match.end()
            return Num(number.value + Fraction(int(match[1]), int(match[2])))
        start = self.at
        self.blank()
        if number.places is None and (fraction := self.digit_fraction()):
            return Num(number.value + fraction)  # 1\frac{1}{2}
        self.at = start
        return number

    def word(self, run: str) -> Node:
        """A run of letters: a name that is known, or letters to be multiplied."""
        if run in CONSTANTS:
            self.at += len(run)
            return Sym(CONSTANTS[run])
        if run in PLAIN_FUNCTIONS:
            self.at += len(run)
            return self.applied(FUNCTIONS[run])
        if run in ("Matrix", "Tuple", "Point"):
            self.at += len(run)
            return self.atom()
        if run in GREEK and len(run) > 2:
            self.at += len(run)
            return Sym(run)
        for length in range(min(7, len(run) - 1), 1, -1):  # sinx, pix
            head = run[:length]
            if head in CONSTANTS and length == 2:
                self.at += length
                return Sym(CONSTANTS[head])
            if head in PLAIN_FUNCTIONS and len(run) - length <= 2 and length > 1:
                self.at += length
                return self.applied(FUNCTIONS[head])
        known = any(run.endswith(name) for name in PLAIN_FUNCTIONS)
        if len(run) >= 4 and not run.isupper() and not known:
            raise Unreadable(f"'{run[:20]}' is a word")
        self.at += 1
        name = run[0]
        if name in UNKNOWN_FUNCTIONS and len(run) == 1 and _APPLIED.match(self.text, self.at):
            return self.unknown_function(name)
        return Sym(name)

    def command(self) -> Node:
        match = _COMMAND.match(self.text, self.at)
        if not match:
            raise Unreadable("a backslash without a name")
        name = match[1]
        self.at = match.end()
        if name in ("frac", "binom"):
            above, below = self.argument(), self.argument()
            return Call("/" if name == "frac" else "binomial", (above, below))
        special = self.special(name)
        if special is not None:
            return special
        if name in CONSTANTS:
            return Sym(CONSTANTS[name])
        if name in GREEK:
            return Sym(name)
        if name in FUNCTIONS:
            return self.applied(FUNCTIONS[name])
        for length in range(len(name) - 1, 1, -1):  # \pir, \cdotx are not LaTeX, \sinx is what people write
            if name[:length] in FUNCTIONS or name[:length] in CONSTANTS:
                self.at = match.start() + 1 + length
                head = name[:length]
                return Sym(CONSTANTS[head]) if head in CONSTANTS else self.applied(FUNCTIONS[head])
        raise Unreadable(f"\\{name[:20]} is not understood")


def _negative(node: Node) -> Node:
    return Num(-node.value, node.places) if isinstance(node, Num) else Call("neg", (node,))


def _name(node: Node) -> str:
    if isinstance(node, Sym):
        return node.name
    if isinstance(node, Call) and node.name.startswith(("at:", "fn:")):
        return node.name + "'"
    raise Unreadable("a subscript on a formula")
