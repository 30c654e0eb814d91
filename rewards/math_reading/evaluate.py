"""Values of trees: exact fractions where possible, else numbers of 50 digits at given points. Any thread."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from fractions import Fraction
from math import lcm, log2
from typing import Any

from mpmath import MPContext

from rewards.math_reading import limits
from rewards.math_reading.limits import Undefined
from rewards.math_reading.tree import Call, Node, Num, Struct, Sym

DIGITS = 50
_own = threading.local()


def context() -> Any:
    """This thread's own mpmath context: the global one is shared and its precision may change under us."""
    if not hasattr(_own, "mp"):
        _own.mp = MPContext()
    _own.mp.dps = DIGITS
    return _own.mp


# --- exact ---


def exact(node: Node) -> Fraction | None:
    """The rational value of a tree without symbols, or None where there is none or it would be too large."""
    if isinstance(node, Num):
        return node.value
    if not isinstance(node, Call):
        return None
    if node.name == "abs" and len(node.args) == 1:
        inner = exact(node.args[0])
        return None if inner is None else abs(inner)
    if node.name not in ("+", "*", "/", "neg", "^", "factorial"):
        return None
    values = [exact(a) for a in node.args]
    if any(v is None for v in values):
        return None
    value = _exact(node.name, [v for v in values if v is not None])
    return value if value is None or bits(value) <= limits.MAX_EXACT_BITS else None


def bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _exact(name: str, v: list[Fraction]) -> Fraction | None:
    if name == "+":
        return v[0] + v[1]
    if name == "*":
        return v[0] * v[1]
    if name == "/":
        return v[0] / v[1] if v[1] else None
    if name == "neg":
        return -v[0]
    if name == "^":
        whole = v[1].denominator == 1 and abs(v[1].numerator) * bits(v[0]) <= limits.MAX_EXACT_BITS
        if not whole or (not v[0] and v[1] <= 0):
            return None
        return v[0] ** int(v[1])
    if v[0].denominator != 1 or not 0 <= v[0] <= limits.MAX_EXACT_FACTORIAL:
        return None
    product = 1
    for factor in range(2, int(v[0]) + 1):
        product *= factor
    return Fraction(product)


# --- numeric ---


class Evaluator:
    """Values at one point. `point`: symbol -> value. A matrix is a tuple of rows. Raises Undefined."""

    def __init__(self, mp: Any, point: Mapping[str, Any]) -> None:
        self.mp, self.point, self.steps = mp, dict(point), 0
        self.left_reals = False  # whether a function of real values was not real

    def __call__(self, node: Node) -> Any:
        self.steps += 1
        if self.steps > limits.MAX_STEPS:
            raise Undefined("too much work")
        if isinstance(node, Num):
            return self.mp.mpf(node.value.numerator) / node.value.denominator
        if isinstance(node, Sym):
            return self._symbol(node.name)
        if isinstance(node, Struct):
            return self._struct(node)
        if node.name in ("sum", "prod"):
            return self._series(node)
        return self._apply(node.name, [self(a) for a in node.args])

    def _symbol(self, name: str) -> Any:
        if name in self.point:
            return self.point[name]
        constant = {"pi": self.mp.pi, "e": self.mp.e, "i": self.mp.j}.get(name)
        if constant is None:
            raise Undefined(f"{name} has no value")
        return +constant

    def _struct(self, node: Struct) -> Any:
        if node.kind == "matrix":
            width = int(node.mark)
            cells = [self(item) for item in node.items]
            return tuple(tuple(cells[i : i + width]) for i in range(0, len(cells), width))
        if node.kind == "base":
            return self(node.items[0])
        raise Undefined(f"a {node.kind} has no value")

    def _series(self, node: Call) -> Any:
        index, lower, upper = node.args[0], self(node.args[1]), self(node.args[2])
        if not (isinstance(index, Sym) and self.mp.isint(lower) and self.mp.isint(upper)):
            raise Undefined("bounds are not integers")
        if upper - lower > limits.MAX_TERMS:
            raise Undefined("too many terms")
        before = self.point.get(index.name)
        total = self.mp.mpf(node.name == "prod")
        for k in range(int(lower), int(upper) + 1):
            self.point[index.name] = self.mp.mpf(k)
            term = self(node.args[3])
            total = total + term if node.name == "sum" else total * term
        self.point.pop(index.name)
        if before is not None:
            self.point[index.name] = before
        return total

    def _apply(self, name: str, v: list[Any]) -> Any:
        if any(isinstance(x, tuple) for x in v):
            return _matrix_operation(name, v)
        try:
            value = self._scalar(name, v)
        except (ZeroDivisionError, ValueError, OverflowError, TypeError, NotImplementedError) as error:
            raise Undefined(str(error)) from None
        if not self.mp.isfinite(value):
            raise Undefined("not finite")
        self.left_reals |= isinstance(value, self.mp.mpc) and not any(isinstance(x, self.mp.mpc) for x in v)
        return value

    def _scalar(self, name: str, v: list[Any]) -> Any:
        mp = self.mp
        if name == "+":
            return v[0] + v[1]
        if name == "*":
            return v[0] * v[1]
        if name == "/":
            return v[0] / v[1]
        if name == "neg":
            return -v[0]
        if name in ("^", "exp"):
            return self._power(*(v if name == "^" else (+mp.e, v[0])))
        if name in ("root", "cbrt"):
            return self._root(v[0], v[1] if len(v) > 1 else mp.mpf(3))
        if name in ("factorial", "gamma"):
            if abs(v[0]) > limits.MAX_FACTORIAL:
                raise Undefined("too large")
            return mp.gamma(v[0] + (name == "factorial"))
        if name == "binomial":
            if max(abs(x) for x in v) > limits.MAX_FACTORIAL:
                raise Undefined("too large")
            return mp.binomial(v[0], v[1])
        if name.startswith(("fn:", "at:")):
            return self._unknown(name, v)
        if name in ("max", "min", "gcd", "lcm"):
            return self._of_many(name, v)
        if max((abs(x) for x in v), default=0) > 1e15 and name not in ("abs", "sqrt", "ln", "log", "sign"):
            raise Undefined("too large for this precision")
        if name in ("floor", "ceil"):  # a value that is an integer but for the last digits is that integer
            near = mp.nint(v[0])
            return near if abs(near - v[0]) < mp.mpf(10) ** (-DIGITS // 2) else getattr(mp, name)(v[0])
        return _function(mp, name)(v[0])

    def _power(self, base: Any, exponent: Any) -> Any:
        mp = self.mp
        if base == 0:
            if mp.re(exponent) > 0:
                return mp.mpf(0)
            raise Undefined("zero to a power that is not positive")
        if abs(exponent) > 2**60:
            raise Undefined("too large")
        size = abs(float(mp.ln(abs(base)))) + 4.0 * (mp.im(base) != 0 or mp.im(exponent) != 0)
        if float(abs(exponent)) * max(size, 1e-9) / log2(2.718281828) > limits.MAX_LOG2:
            raise Undefined("too large")
        return mp.power(base, exponent)

    def _root(self, value: Any, degree: Any) -> Any:
        if not degree:
            raise Undefined("no root of degree zero")
        if self.mp.im(value) == 0 and value < 0 and self.mp.isint(degree) and int(degree) % 2:
            return -self._power(-value, 1 / degree)
        return self._power(value, 1 / degree)

    def _unknown(self, name: str, v: list[Any]) -> Any:
        """A function nobody defined: any smooth one, always the same for the same name."""
        seed = hashlib.blake2b(f"{name}/{len(v)}".encode(), digest_size=6).digest()
        if any(abs(x) > 1e6 for x in v):
            raise Undefined("too large")
        phase = sum((x * (3 + seed[i % 6] / 64) for i, x in enumerate(v)), self.mp.mpf(seed[5]))
        return self.mp.sin(phase) + 1 + self.mp.mpf(seed[4]) / 64

    def _of_many(self, name: str, v: list[Any]) -> Any:
        if name in ("max", "min"):
            return (max if name == "max" else min)(v)
        if not all(self.mp.isint(x) and abs(x) < 2**200 for x in v):
            raise Undefined("not integers")
        import math

        return self.mp.mpf((math.gcd if name == "gcd" else lcm)(*(int(x) for x in v)))


def _function(mp: Any, name: str) -> Any:
    if name in ("log", "ln"):
        return mp.ln
    if name in ("abs", "sqrt", "sign", "floor", "ceil", "conj", "re", "im", "arg", "erf"):
        return getattr(mp, {"abs": "fabs", "arg": "arg"}.get(name, name))
    if name in ("sinh", "cosh", "tanh", "sech", "csch", "coth") or len(name) == 3:
        hyperbolic = getattr(mp, name, None)
        if hyperbolic is None:
            raise Undefined(name)
        return _bounded(hyperbolic) if name.endswith("h") else hyperbolic
    function = getattr(mp, name, None) if name.startswith("a") else None
    if function is None:
        raise Undefined(name)
    return function


def _bounded(function: Any) -> Any:
    def bounded(x: Any) -> Any:
        if abs(x) > 1e6:
            raise Undefined("too large")
        return function(x)

    return bounded


Rows = tuple[tuple[Any, ...], ...]


def _matrix_operation(name: str, v: list[Any]) -> Any:
    a: Any = v[0]
    b: Any = v[1] if len(v) > 1 else None
    if name == "neg":
        return tuple(tuple(-x for x in row) for row in a)
    if name == "transpose":
        return tuple(zip(*a, strict=True))
    if name == "+" and isinstance(a, tuple) and isinstance(b, tuple) and (len(a), len(a[0])) == (len(b), len(b[0])):
        return tuple(tuple(x + y for x, y in zip(r, s, strict=True)) for r, s in zip(a, b, strict=True))
    if name == "*" and isinstance(a, tuple) and isinstance(b, tuple):
        if len(a[0]) == len(b):
            columns = list(zip(*b, strict=True))
            return tuple(tuple(sum(x * y for x, y in zip(r, c, strict=True)) for c in columns) for r in a)
    elif name == "*":
        scalar, matrix = (b, a) if isinstance(a, tuple) else (a, b)
        return tuple(tuple(scalar * x for x in row) for row in matrix)
    elif name == "/" and not isinstance(b, tuple) and b:
        return tuple(tuple(x / b for x in row) for row in a)
    elif name == "det" and len(a) == len(a[0]) <= 6:
        return _determinant(a)
    raise Undefined(f"{name} of these matrices")


def _determinant(rows: Rows) -> Any:
    if len(rows) == 1:
        return rows[0][0]
    minors = (tuple(row[:i] + row[i + 1 :] for row in rows[1:]) for i in range(len(rows)))
    return sum((-1) ** i * rows[0][i] * _determinant(minor) for i, minor in enumerate(minors))
