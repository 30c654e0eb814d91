"""Are two values equal? Exactly where both are rational, else by 50-digit values at seeded points."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from rewards.math_reading.evaluate import DIGITS, Evaluator, context, exact
from rewards.math_reading.exact_numbers import is_rounded, same_number
from rewards.math_reading.limits import Undefined
from rewards.math_reading.tree import Call, Node, Num, Struct, Sym, symbols, walk

CONSTANTS = frozenset({"pi", "e", "i", "oo"})
# Ranges that points are drawn from: where most functions are defined first, both signs next, then small and large.
_RANGES = ((0.2, 2.8), (1.1, 3.3), (-2.9, 2.9), (-3.1, 3.1), (0.05, 0.95), (-0.95, 0.95), (3.0, 9.0), (-2.2, -0.3))
_SAME = 10.0**-22  # relative; values have 50 digits, of which cancellation may eat half


def draw(name: str, at: int, low: float, high: float) -> float:
    """The seeded value of a symbol at a point, the same in every process."""
    seed = int.from_bytes(hashlib.blake2b(f"{name}#{at}".encode(), digest_size=6).digest())
    return low + (high - low) * seed / 2.0**48


def points(names: set[str], *, integers: bool) -> Iterator[dict[str, Any]]:
    """Points to compare at: one without symbols, else eight; positive integers where a sum runs to a symbol."""
    mp = context()
    if not names:
        yield {}
        return
    for at, (low, high) in enumerate(_RANGES):
        if integers:
            yield {n: mp.mpf(round(draw(n, at, 2.0, 9.0))) for n in names}
        else:
            yield {n: mp.mpf(draw(n, at, low, high)) for n in names}


def free_symbols(*nodes: Node) -> set[str]:
    """Variables: all symbols but constants and the indices of sums."""
    names = set().union(*(symbols(n) for n in nodes)) - CONSTANTS
    bound = {
        n.args[0].name
        for node in nodes
        for n in walk(node)
        if isinstance(n, Call) and n.name in ("sum", "prod") and isinstance(n.args[0], Sym)
    }
    return names - bound


def has_series(*nodes: Node) -> bool:
    return any(isinstance(n, Call) and n.name in ("sum", "prod") for node in nodes for n in walk(node))


def values(nodes: tuple[Node, ...]) -> Iterator[tuple[tuple[Any, ...], bool]]:
    """The values of all nodes at the points where all of them exist; False where a root or logarithm left the reals."""
    for point in points(free_symbols(*nodes), integers=has_series(*nodes)):
        evaluators = [Evaluator(context(), point) for _ in nodes]
        try:
            found = tuple(evaluate(node) for evaluate, node in zip(evaluators, nodes, strict=True))
        except Undefined:
            continue
        yield found, not any(evaluate.left_reals for evaluate in evaluators)


def same_value(a: Node, b: Node) -> bool:
    """Equal wherever both are real; where they are nowhere both real, equal as complex numbers."""
    left, right = exact(a), exact(b)
    if left is not None and right is not None:
        return same_number(a if isinstance(a, Num) else Num(left), b if isinstance(b, Num) else Num(right))
    if a == b:
        return True
    for decimal, other in ((a, b), (b, a)):
        if isinstance(decimal, Num) and is_rounded(decimal) and not free_symbols(other) and _rounded(decimal, other):
            return True
    real: list[bool] = []
    unreal: list[bool] = []
    for (x, y), within_reals in values((a, b)):
        both_real = within_reals and _is_real(x) and _is_real(y)
        (real if both_real else unreal).append(close(x, y) or _vanishes(a, b, x, y))
        if both_real and not real[-1]:
            return False
    if not free_symbols(a, b):
        return (real + unreal) == [True]
    return all(real) if len(real) > 1 else bool(unreal) and all(real + unreal)


def close(x: Any, y: Any) -> bool:
    """Equal but for the last digits, relative to their size."""
    if isinstance(x, tuple) or isinstance(y, tuple):
        if not (isinstance(x, tuple) and isinstance(y, tuple)) or (len(x), len(x[0])) != (len(y), len(y[0])):
            return False
        pairs = [(p, q) for r, s in zip(x, y, strict=True) for p, q in zip(r, s, strict=True)]
        return all(close(p, q) or abs(p - q) < 1e-40 for p, q in pairs)
    return bool(abs(x - y) <= _SAME * max(abs(x), abs(y)))


def _is_real(x: Any) -> bool:
    if isinstance(x, tuple):
        return True
    mp = context()
    return bool(abs(mp.im(x)) <= mp.mpf(10) ** -35 * max(abs(x), mp.mpf(10) ** -10))


def _vanishes(a: Node, b: Node, x: Any, y: Any) -> bool:
    """Whether the difference is a zero that rounding hides: with twice the digits it shrinks as they do."""
    if isinstance(x, tuple) or isinstance(y, tuple):
        return False
    difference = abs(x - y)
    if difference > 1e-25 or free_symbols(a, b):
        return bool(difference <= 1e-40)
    mp = context()
    mp.dps = 2 * DIGITS
    try:
        evaluate = Evaluator(mp, {})
        return bool(abs(evaluate(a) - evaluate(b)) < difference * mp.mpf(10) ** -20)
    except Undefined:
        return False
    finally:
        mp.dps = DIGITS


def _rounded(decimal: Num, other: Node) -> bool:
    """Whether the decimal is the other value, cut or rounded at its last digit."""
    if isinstance(other, Num) or exact(other) is not None:
        return False
    for (value,), _ in values((other,)):
        if not isinstance(value, tuple) and _is_real(value):
            distance = abs(context().re(value) - context().mpf(decimal.value.numerator) / decimal.value.denominator)
            return bool(distance * 10 ** (decimal.places or 0) < 1)
    return False


def is_scalar(node: Node) -> bool:
    return not isinstance(node, Struct) or node.kind in ("matrix", "base")
