"""Forms of their own within a formula: brackets, roots, function arguments, matrices, sums, text."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

from rewards.math_reading import limits
from rewards.math_reading.cursor import Cursor
from rewards.math_reading.limits import Unreadable
from rewards.math_reading.tree import Call, Node, Num, Struct, Sym
from rewards.math_reading.vocabulary import CONSTANTS, FUNCTIONS, PLAIN_FUNCTIONS

_DIGIT_FRACTION = re.compile(r"\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_MATRIX = re.compile(r"\\begin\{([pbBvV]?matrix|smallmatrix|array)\}\s*(?:\{[lcr| ]*\})?")
_BUILDER = re.compile(r"\s*[a-zA-Z]\s*(?:∈\s*\\mathbb\s*\{?\s*R\s*\}?\s*)?[|:]\s*(?=.*[<>=∈])")
_MARKS = {
    "overline",
    "bar",
    "vec",
    "overrightarrow",
    "hat",
    "widehat",
    "mathbb",
    "mathcal",
    "tilde",
    "angle",
    "triangle",
}
_MANY = {"max", "min", "gcd", "lcm", "binomial"}
_ENDS_ARGUMENT = re.compile(r"[A-Za-z]+|\\[A-Za-z]+")


class SpecialForms(Cursor):
    """The part of the reader that knows the forms; `FormulaReader` is the part that knows the grammar."""

    if TYPE_CHECKING:

        def listing(self, kind: str, mark: str = "") -> Node: ...
        def sum(self) -> Node: ...
        def term(self) -> Node: ...
        def factor(self) -> Node: ...
        def atom(self) -> Node: ...
        def exponent(self) -> Node: ...
        def begins_factor(self) -> bool: ...

    def bracket(self, sign: str) -> Node:
        """`(..)`, `[..]`, half-open intervals, sets, LaTeX groups. One item in brackets is itself."""
        self.at += len(sign)
        self.deeper()
        bars, self.bars = self.bars, 0
        self.brackets += sign != "{"
        node = self._enclosed(sign)
        self.brackets -= sign != "{"
        self.bars = bars
        self.depth -= 1
        return node

    def _enclosed(self, sign: str) -> Node:
        if sign == "{":
            if self.take("}"):
                raise Unreadable("empty braces")
            node = self.listing("list")
            self.expect("}")
            return Struct("set", node.items) if isinstance(node, Struct) and node.kind == "list" else node
        if sign == "\\{":
            if builder := _BUILDER.match(self.text, self.at):  # {x | x > 3} is what the condition says
                self.at = builder.end()
                node = self.listing("list")
                self.expect("\\}")
                return node
            node = self.listing("set")
            self.expect("\\}")
            return node
        node = self.listing("seq", "?")
        for closer in (")", "]"):
            if self.take(closer):
                mark = sign + closer
                if isinstance(node, Struct) and node.mark == "?":
                    if mark in ("(]", "[)") and len(node.items) != 2:
                        raise Unreadable("an interval has two ends")
                    return Struct("seq", node.items, mark)
                if mark in ("(]", "[)"):
                    raise Unreadable("brackets do not match")
                return node
        raise Unreadable("a bracket is not closed")

    def argument(self) -> Node:
        """What a LaTeX command takes: a group, a command, or one character."""
        self.blank()
        sign = self.text[self.at : self.at + 1]
        if sign.isdigit():
            self.at += 1
            return Num(Fraction(int(sign)))
        if sign.isalpha():
            self.at += 1
            return Sym(sign)
        return self.atom()

    def digit_fraction(self) -> Fraction | None:
        """`\\frac` of two integers after an integer: the rest of a mixed number."""
        match = _DIGIT_FRACTION.match(self.text, self.at)
        below = int(match[3] or match[4]) if match else 0
        if not match or not below:
            return None
        self.at = match.end()
        return Fraction(int(match[1] or match[2]), below)

    def unknown_function(self, name: str) -> Node:
        argument = self.atom()
        arguments = argument.items if isinstance(argument, Struct) and argument.kind == "seq" else (argument,)
        return Call(f"fn:{name}", arguments)

    def applied(self, name: str) -> Node:
        """A function with its base, power and argument: `sin^2(x)`, `log_2 8`, `sin 2x`, `sin cos x`."""
        self.count()
        self.deeper()
        if name == "sqrt":
            root = self._root()
            self.depth -= 1
            return root
        base = power = None
        for _ in range(2):
            self.blank()
            if self.text.startswith("_", self.at) and base is None:
                self.at += 1
                base = self.argument() if not re.match(r"\d\d", self.text[self.at : self.at + 2]) else self.atom()
            elif self.text.startswith("^", self.at) and power is None:
                self.at += 1
                power = self.exponent()
        arguments = self._arguments(name)
        self.depth -= 1
        if isinstance(power, Num) and power.value == -1 and f"a{name}" in FUNCTIONS.values():
            name, power = f"a{name}", None
        if name == "log" and base is not None:
            node: Node = Call("/", (Call("ln", arguments), Call("ln", (base,))))
        elif name == "lg":
            node = Call("/", (Call("ln", arguments), Call("ln", (Num(Fraction(10)),))))
        elif base is not None:
            raise Unreadable("a subscript on a function")
        else:
            node = Call(name, arguments)
        return Call("^", (node, power)) if power is not None else node

    def _arguments(self, name: str) -> tuple[Node, ...]:
        sign = self.peek()
        if sign in ("(", "{", "[", "\\{"):
            inner = self.bracket(sign)
            if isinstance(inner, Struct) and inner.kind == "set" and len(inner.items) == 1:
                inner = inner.items[0]
            if isinstance(inner, Struct) and inner.kind in ("seq", "set", "list"):
                if name == "log" and len(inner.items) == 2 and sign == "(":
                    return (Call("/", (Call("ln", inner.items[:1]), Call("ln", inner.items[1:]))),)
                if name not in _MANY:
                    raise Unreadable(f"{name} takes one argument")
                return inner.items
            return (inner,)
        if sign == "-":
            self.at += 1
            return (Call("neg", (self.factor(),)),)
        node = self.factor()
        while self.begins_factor() and not self._function_next() and self.peek() not in ("(", "["):
            self.count()
            node = Call("*", (node, self.factor()))
        return (node,)

    def _function_next(self) -> bool:
        match = _ENDS_ARGUMENT.match(self.text, self.at)
        if not match:
            return False
        name = match[0].lstrip("\\")
        return name in (FUNCTIONS if match[0][0] == "\\" else PLAIN_FUNCTIONS) and name not in CONSTANTS

    def _root(self) -> Node:
        self.blank()
        if self.text.startswith("[", self.at):
            start = self.at
            degree = self.bracket("[")
            if self.peek() in ("{", "(") or self.begins_factor():
                return Call("root", (self.argument(), degree))
            self.at = start
        inner = self.bracket("(") if self.text.startswith("(", self.at) else self._radicand()
        return Call("sqrt", (inner,))

    def _radicand(self) -> Node:
        if re.match(r"\d", self.text[self.at : self.at + 1]):
            return self.atom()
        return self.argument()

    def special(self, name: str) -> Node | None:
        """The node of a command that is neither a function nor a letter, or None."""
        if name in ("sum", "prod"):
            return self._series(name)
        if name in ("lfloor", "lceil"):
            inner = self.sum()
            self.expect("\\r" + name[1:])
            return Call(name[1:], (inner,))
        if name == "begin":
            self.at -= len("\\begin")
            return self._matrix()
        if name == "text":
            self.expect("{")
            end = self.text.find("}", self.at)
            word, self.at = self.text[self.at : end], end + 1
            return Struct("text", (), " ".join(word.split()).casefold())
        if name in _MARKS:
            inner = self.argument()
            return Call(f"fn:{name}", (inner,))
        if name == "langle":
            node = self.listing("seq", "()")  # a vector is written as the point it leads to
            self.expect("\\rangle")
            return node
        if name in ("mathrm", "rm", "mathbf", "operatorname"):
            return self.argument()
        return None

    def _series(self, name: str) -> Node:
        self.expect("_")
        lower = self.argument()
        self.expect("^")
        upper = self.argument()
        body = self.term()
        if not (
            isinstance(lower, Struct) and lower.kind == "rel" and lower.mark == "=" and isinstance(lower.items[0], Sym)
        ):
            raise Unreadable("a sum without its index")
        return Call(name, (lower.items[0], lower.items[1], upper, body))

    def _matrix(self) -> Node:
        match = _MATRIX.match(self.text, self.at)
        if not match:
            raise Unreadable("an environment that is no matrix")
        self.at = match.end()
        rows: list[list[Node]] = [[]]
        end = f"\\end{{{match[1]}}}"
        self.brackets += 1
        while not self.take(end):
            if self.take("\\\\"):
                rows.append([])
            elif not self.take("&"):
                if not self.peek():
                    raise Unreadable("a matrix is not closed")
                self.take("\\hline")
                rows[-1].append(self.sum())
            if sum(map(len, rows)) > limits.MAX_ITEMS or len(rows) > limits.MAX_ITEMS:
                raise Unreadable("too many items")
        self.brackets -= 1
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) != 1:
            raise Unreadable("rows of different lengths")
        node: Node = Struct("matrix", tuple(item for row in rows for item in row), str(len(rows[0])))
        return Call("det", (node,)) if match[1] == "vmatrix" else node
