"""Equations and inequalities: same solutions? And the value or interval that a relation stands for."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from rewards.math_reading.scalars import CONSTANTS, close, free_symbols, is_scalar, same_value, values
from rewards.math_reading.tree import Call, Node, Num, Struct, Sym, walk

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!=", "≈": "≈", "∈": "∈"}
_MINUS_INFINITY = Call("neg", (Sym("oo"),))
_REALS = Call("fn:mathbb", (Sym("R"),))
_NAMING = ("*", "/", "abs", "sin", "cos", "tan", "ln", "log", "det", "^", "re", "im", "arg")
_MAX_DEGREE = 12
Interval = tuple[Node, Node, str]


def is_name(node: Node) -> bool:
    """Whether it names a quantity (`x`, `f(3)`, `NO/BO`, `V_1 : V_2`, `(x, y)`) rather than computes one."""
    if isinstance(node, Sym):
        return node.name not in CONSTANTS
    if isinstance(node, Call):
        if node.name.startswith(("fn:", "at:")):
            return True
        if node.name == "*":  # A(x), read as a product
            return all(is_name(a) for a in node.args) or (
                isinstance(node.args[0], Sym) and isinstance(node.args[1], Num) and node.args[0].name.isupper()
            )
        return node.name in _NAMING and all(is_name(a) for a in node.args)
    return isinstance(node, Struct) and node.kind in ("seq", "ratio") and all(is_name(a) for a in node.items)


def value_of(node: Struct) -> Node | None:
    """What a chain of equations gives: the last value of `x = 1 + 1 = 2`, `{1, 2}` of `k in {1, 2}`; or None."""
    relations = node.mark.split()
    items = list(node.items)
    if relations == ["∈"]:
        return items[1] if is_name(items[0]) else None
    if not set(relations) <= {"=", "≈"}:
        return None
    exact_end = next((i for i, r in enumerate(relations) if r == "≈"), len(relations))
    if exact_end == 0 and len(items) == 2:
        return items[1] if is_name(items[0]) else None
    items = items[: exact_end + 1]
    if len(items) == 1:
        return items[0]
    if is_name(items[-1]) and not is_name(items[0]):
        items.reverse()
    if is_name(items[0]):
        return items[-1]
    if all(is_scalar(i) and not free_symbols(i) for i in items) and same_value(items[0], items[-1]):
        return items[-1]
    return None


def interval_of(node: Node) -> Interval | None:
    """Lower end, upper end, brackets: of `[a, b)`, of `x < 3`, of `1 < x <= 2`, of `x in (0, 1)`."""
    if (
        isinstance(node, Struct)
        and node.kind == "seq"
        and len(node.items) == 2
        and node.mark in ("()", "[]", "(]", "[)")
    ):
        return node.items[0], node.items[1], node.mark
    if node == _REALS:
        return _MINUS_INFINITY, Sym("oo"), "()"
    if not isinstance(node, Struct) or node.kind != "rel":
        return None
    relations, items = node.mark.split(), list(node.items)
    if relations == ["∈"]:
        return interval_of(items[1]) if is_name(items[0]) else None
    if set(relations) <= {">", ">="}:
        items.reverse()
        relations = [_FLIPPED[r] for r in reversed(relations)]
    if not set(relations) <= {"<", "<="}:
        return None
    ends = ["(" if relations[0] == "<" else "[", ")" if relations[-1] == "<" else "]"]
    if len(items) == 3 and is_name(items[1]):
        return items[0], items[2], "".join(ends)
    if len(items) == 2 and is_name(items[0]) != is_name(items[1]):
        if is_name(items[0]):
            return _MINUS_INFINITY, items[1], "(" + ends[1]
        return items[0], Sym("oo"), ends[0] + ")"
    return None


def same_relation(a: Struct, b: Struct) -> bool:
    """Same solutions, as far as can be shown: equal side by side, or one a multiple of the other."""
    if len(a.items) != 2 or len(b.items) != 2:
        return False
    (left, right, relation), (other_left, other_right, other_relation) = _ordered(a), _ordered(b)
    if relation != other_relation or not all(is_scalar(n) for n in (*a.items, *b.items)):
        return False
    first = Call("+", (left, Call("neg", (right,))))
    second = Call("+", (other_left, Call("neg", (other_right,))))
    ratio = _constant_ratio(first, second)
    if ratio is not None:
        return relation in ("=", "!=") or bool(ratio > 0)
    return relation in ("<", "<=") and _same_sign(first, second)


def _ordered(node: Struct) -> tuple[Node, Node, str]:
    left, right = node.items
    if node.mark in (">", ">="):
        return right, left, _FLIPPED[node.mark]
    return left, right, "=" if node.mark == "≈" else node.mark


def _constant_ratio(first: Node, second: Node) -> Any:
    """The quotient of two differences where it is the same everywhere and neither zero nor undefined, else None."""
    if not free_symbols(first) or free_symbols(first) != free_symbols(second):
        return None
    quotients = []
    for (x, y), _ in values((first, second)):
        if isinstance(x, tuple) or isinstance(y, tuple) or abs(x) < 1e-30 or abs(y) < 1e-30:
            return None
        quotients.append(x / y)
    if len(quotients) < 3 or not all(close(q, quotients[0]) for q in quotients[1:]):
        return None
    quotient = quotients[0]
    return quotient.real if abs(quotient.imag) < 1e-30 * abs(quotient) else 0 * quotient.real


def _same_sign(first: Node, second: Node) -> bool:
    """For polynomials in one variable: their quotient has no real zero or pole and is positive."""
    names = free_symbols(first, second)
    if len(names) != 1:
        return False
    import sympy

    variable = sympy.Symbol("t", real=True)
    made = [_polynomial(n, names, variable) for n in (first, second)]
    if any(m is None for m in made):
        return False
    above, below = sympy.fraction(sympy.cancel(made[0] / made[1]))
    roots = sum(sympy.Poly(part, variable).count_roots() for part in (above, below) if part.has(variable))
    return not roots and bool((above / below).subs(variable, 0) > 0)


def _polynomial(node: Node, names: set[str], variable: Any) -> Any:
    """A sympy polynomial of a tree of sums, products and small powers; None where it is something else."""
    import sympy

    if isinstance(node, Num):
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if isinstance(node, Sym):
        return variable if node.name in names else None
    if not isinstance(node, Call) or node.name not in ("+", "*", "neg", "^", "/"):
        return None
    if node.name == "^":
        power = node.args[1]
        if not isinstance(power, Num) or power.value.denominator != 1 or not 0 <= power.value <= _MAX_DEGREE:
            return None
        base = _polynomial(node.args[0], names, variable)
        return None if base is None else _bounded(base ** int(power.value), variable)
    parts = [_polynomial(a, names, variable) for a in node.args]
    if any(p is None for p in parts):
        return None
    if node.name == "neg":
        return -parts[0]
    if node.name == "/":
        return None if parts[1].has(variable) or not parts[1] else parts[0] / parts[1]
    return _bounded(parts[0] + parts[1] if node.name == "+" else parts[0] * parts[1], variable)


def _bounded(polynomial: Any, variable: Any) -> Any:
    import sympy

    expanded = sympy.expand(polynomial)
    return expanded if sympy.degree(expanded, variable) <= _MAX_DEGREE else None


def expand_signs(node: Node) -> tuple[Node, ...]:
    """The values of a formula with plus-minus signs: one, or two in which all signs agree."""
    if not any(isinstance(n, Struct) and n.kind == "pm" for n in walk(node)):
        return (node,)
    return _signed(node, 1), _signed(node, -1)


def _signed(node: Node, sign: int) -> Node:
    if isinstance(node, Call):
        return Call(node.name, tuple(_signed(a, sign) for a in node.args))
    if isinstance(node, Struct):
        items = tuple(_signed(a, sign) for a in node.items)
        if node.kind == "pm":
            zero = items[0] == Num(Fraction(0))
            second = items[1] if sign > 0 else Call("neg", (items[1],))
            return second if zero else Call("+", (items[0], second))
        return Struct(node.kind, items, node.mark)
    return node
