"""`|x - 1| < 2` says how far a variable is from a point: the same as `-1 < x < 3`."""

from __future__ import annotations

from fractions import Fraction

from rewards.math_reading.evaluate import exact
from rewards.math_reading.scalars import free_symbols, is_scalar, values
from rewards.math_reading.tree import Call, Node, Num, Struct, Sym

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ZERO = Num(Fraction(0))


def without_distance(node: Struct) -> Struct:
    """`|a x + b| < c` as a chain, `|a x + b| > c` as two inequalities; anything else as it is.

    a is a rational number, b and c are constants, c is positive.
    """
    if node.kind != "rel" or len(node.items) != 2 or node.mark not in _FLIPPED:
        return node
    (left, right), mark = node.items, node.mark
    if isinstance(right, Call) and right.name == "abs":
        left, right, mark = right, left, _FLIPPED[mark]
    if not (isinstance(left, Call) and left.name == "abs" and len(left.args) == 1):
        return node
    names = free_symbols(left)
    if len(names) != 1 or free_symbols(right) or not is_scalar(right) or not _positive(right):
        return node
    variable = Sym(names.pop())
    ends = _ends(left.args[0], variable, right)
    if ends is None:
        return node
    low, high = ends
    if mark in ("<", "<="):
        return Struct("rel", (low, variable, high), f"{mark} {mark}")
    below = Struct("rel", (variable, low), _FLIPPED[mark])
    return Struct("list", (below, Struct("rel", (variable, high), mark)))


def _ends(inner: Node, variable: Sym, distance: Node) -> tuple[Node, Node] | None:
    """Where `inner`, if it is linear in the variable, is the distance below and above zero."""
    found = _linear(inner, variable)
    if found is None or not found[0]:
        return None
    slope, rest = found
    middle = Call("/", (Call("neg", (rest,)), Num(slope)))
    half = Call("/", (distance, Num(abs(slope))))
    return Call("+", (middle, Call("neg", (half,)))), Call("+", (middle, half))


def _linear(node: Node, variable: Sym) -> tuple[Fraction, Node] | None:
    """a and b of `a x + b`, where a is rational; None for anything else."""
    if node == variable:
        return Fraction(1), _ZERO
    if not free_symbols(node):
        return (Fraction(0), node) if is_scalar(node) else None
    if not isinstance(node, Call) or node.name not in ("+", "neg", "*", "/"):
        return None
    parts = [_linear(part, variable) for part in node.args]
    if any(part is None for part in parts):
        return None
    known = [part for part in parts if part is not None]
    if node.name == "+":
        return known[0][0] + known[1][0], Call("+", (known[0][1], known[1][1]))
    if node.name == "neg":
        return -known[0][0], Call("neg", (known[0][1],))
    factor, other = (node.args[1], known[0]) if node.name == "/" or not known[1][0] else (node.args[0], known[1])
    value = exact(factor)
    if not value:
        return None
    return (other[0] / value if node.name == "/" else other[0] * value), Call(node.name, (other[1], factor))


def _positive(node: Node) -> bool:
    value = exact(node)
    if value is not None:
        return value > 0
    return any(not isinstance(x, tuple) and x.imag == 0 and x.real > 0 for (x,), _ in values((node,)))
