"""The tree that a reader makes of an answer: plain frozen records, nothing that can be executed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Num:
    """A number as written. `places`: digits after the decimal point, or None for an integer."""

    value: Fraction
    places: int | None = None


@dataclass(frozen=True, slots=True)
class Sym:
    """A variable, or a constant such as `pi`."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """An operation or function: `+ * / ^ neg`, `sin`, `fn:f` (an unknown function), `at:x` (subscript), `sum`."""

    name: str
    args: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    """Something that is no single value.

    Kinds: `list` (bare, by commas), `seq` (in brackets, which are in `mark`), `set`, `rel` (chain; `mark` has the
    relations, separated by blanks), `ratio`, `union`, `inter`, `minus`, `matrix` (`mark`: number of columns), `pm`,
    `text` (`mark`), `base` (`mark`: digits_base).
    """

    kind: str
    items: tuple[Node, ...]
    mark: str = ""


Node = Num | Sym | Call | Struct


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, Call):
            stack.extend(node.args)
        elif isinstance(node, Struct):
            stack.extend(node.items)


def symbols(node: Node) -> set[str]:
    """Names of the symbols in it."""
    return {n.name for n in walk(node) if isinstance(n, Sym)}
