"""Equality of answers that are more than a value: the structures must be of one kind, then their parts are compared."""

from __future__ import annotations

from rewards.math_reading.distances import without_distance
from rewards.math_reading.limits import MAX_ITEMS
from rewards.math_reading.relations import expand_signs, interval_of, is_name, same_relation, value_of
from rewards.math_reading.scalars import free_symbols, is_scalar, same_value
from rewards.math_reading.tree import Call, Node, Num, Struct, Sym

_OPERATIONS = ("union", "inter", "minus")


def same(a: Node, b: Node) -> bool:
    """Whether two trees are the same answer."""
    a, b = _plain(a), _plain(b)
    if is_scalar(a) and is_scalar(b):
        return _same_scalar(a, b)
    if _kind(a) == "rel" or _kind(b) == "rel":
        return _same_with_relation(a, b)
    if isinstance(a, Struct) and isinstance(b, Struct):
        return _same_structure(*_as_matrices(a, b))
    if interval_of(a) and interval_of(b):
        return _same_with_relation(a, b)
    if _kind(a) == "ratio" or _kind(b) == "ratio":
        ratio, number = (a, b) if isinstance(a, Struct) and a.kind == "ratio" else (b, a)
        return (
            isinstance(ratio, Struct)
            and len(ratio.items) == 2
            and is_scalar(number)
            and _same_scalar(Call("/", ratio.items), number)
        )
    return False


def _kind(node: Node) -> str:
    return node.kind if isinstance(node, Struct) and not is_scalar(node) else "scalar"


def _plain(node: Node) -> Node:
    """Plus-minus as a list, named lists without their names, nested lists flat, a list of one as its item."""
    if not isinstance(node, Struct):
        expanded = expand_signs(node)
        return expanded[0] if len(expanded) == 1 else Struct("list", expanded)
    node = without_distance(node)
    if node.kind == "pm":
        return Struct("list", expand_signs(node))
    if node.kind == "rel" and any(_kind(i) == "pm" for i in node.items):
        return Struct("list", expand_signs(node))
    if node.kind in ("list", "set"):
        items = _unnamed([part for item in node.items for part in _parts(item)])
        if len(items) == 1 and node.kind == "list":
            return items[0]
        return Struct(node.kind, tuple(items))
    return node


def _parts(item: Node) -> tuple[Node, ...]:
    plain = _plain(item) if not isinstance(item, Struct) or item.kind in ("pm", "list", "rel") else item
    return plain.items if isinstance(plain, Struct) and plain.kind == "list" else (plain,)


def _unnamed(items: list[Node]) -> list[Node]:
    """`n = 2, 3, 4` and `x = 2, x = -3` as values; groups of equations `p = 5, q = 2; ...` as tuples."""
    named = [
        i for i in items if isinstance(i, Struct) and i.kind == "rel" and i.mark in ("=", "∈") and is_name(i.items[0])
    ]
    if named and named[0] is items[0]:
        only_first = len(named) == 1 and len(items) > 1 and all(_kind(i) != "rel" for i in items[1:])
        all_alike = len(named) == len(items) > 1 and len({i.items[0] for i in named}) == 1
        if only_first or all_alike:
            items = [i.items[-1] if isinstance(i, Struct) and i.kind == "rel" else i for i in items]
    return [_group(i) for i in items]


def _group(item: Node) -> Node:
    if (
        isinstance(item, Struct)
        and item.kind == "seq"
        and item.mark == "()"
        and all(_kind(i) == "rel" for i in item.items)
    ):
        inner = [value_of(i) for i in item.items if isinstance(i, Struct)]
        if all(v is not None for v in inner):
            return Struct("seq", tuple(v for v in inner if v is not None), "()")
    return item


def _same_scalar(a: Node, b: Node) -> bool:
    if isinstance(a, Struct) and isinstance(b, Struct) and a.kind == b.kind == "base":
        return a.mark == b.mark
    for base, other in ((a, b), (b, a)):
        if isinstance(base, Struct) and base.kind == "base":
            return isinstance(other, Num) and str(other.value) == base.mark.partition("_")[0]
    infinite = [isinstance(n, Sym) and n.name == "oo" for n in (_absolute(a), _absolute(b))]
    return a == b if any(infinite) else same_value(a, b)


def _absolute(node: Node) -> Node:
    return node.args[0] if isinstance(node, Call) and node.name == "neg" else node


def _same_structure(a: Struct, b: Struct) -> bool:
    if a.kind == "text" or b.kind == "text":
        return a.kind == b.kind and a.mark == b.mark
    if a.kind in ("list", "set") and b.kind in ("list", "set"):
        return _same_members(a.items, b.items) or _same_equations(a, b)
    if a.kind in _OPERATIONS or b.kind in _OPERATIONS:
        return _same_operation(a, b)
    if a.kind == b.kind == "ratio":
        return _same_ratio(a, b)
    if a.kind == b.kind == "matrix":
        return same_value(a, b)
    if {a.kind, b.kind} == {"seq", "list"}:
        return _same_equations(a, b)
    if a.kind == b.kind == "seq":
        return a.mark == b.mark and _in_order(a.items, b.items)
    return False


def _as_matrices(a: Struct, b: Struct) -> tuple[Struct, Struct]:
    """Rows in square brackets are a matrix where the other side is one."""
    if a.kind == "matrix":
        return a, _rows(b)
    return (_rows(a), b) if b.kind == "matrix" else (a, b)


def _rows(node: Struct) -> Struct:
    rows = [i for i in node.items if isinstance(i, Struct) and i.kind == "seq" and i.mark == "[]"]
    if node.mark == "[]" and len(rows) == len(node.items) and len({len(r.items) for r in rows}) == 1:
        return Struct("matrix", tuple(cell for row in rows for cell in row.items), str(len(rows[0].items)))
    return node


def _in_order(a: tuple[Node, ...], b: tuple[Node, ...]) -> bool:
    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


def _same_members(a: tuple[Node, ...], b: tuple[Node, ...]) -> bool:
    """Every member of one is a member of the other: order and repetition do not matter."""
    if len(a) * len(b) > MAX_ITEMS:
        return _in_order(a, b)
    table = [[same(x, y) for y in b] for x in a]
    return (
        all(any(row) for row in table)
        and all(any(column) for column in zip(*table, strict=True))
        and bool(a) == bool(b)
    )


def _same_equations(a: Struct, b: Struct) -> bool:
    """`k = 45, n = 2` against `45, 2`: in the order of the list."""
    for named, bare in ((a, b), (b, a)):
        if all(_kind(i) == "rel" for i in named.items) and not any(_kind(i) == "rel" for i in bare.items):
            inner = [value_of(i) for i in named.items if isinstance(i, Struct)]
            found = tuple(v for v in inner if v is not None)
            return len(found) == len(inner) > 1 and _in_order(found, bare.items)
    return False


def _operands(node: Node, kind: str) -> tuple[Node, ...]:
    if isinstance(node, Struct) and node.kind == kind and kind != "minus":
        return _operands(node.items[0], kind) + _operands(node.items[1], kind)
    return (node,)


def _as_set(node: Node) -> Node:
    """A value among sets (its braces were read as a group) is the set of it."""
    return Struct("set", (node,)) if is_scalar(node) and not isinstance(node, Sym) else node


def _same_operation(a: Struct, b: Struct) -> bool:
    if a.kind == b.kind:
        if a.kind == "minus":
            return _in_order(a.items, b.items)
        return _same_members(*(tuple(_as_set(o) for o in _operands(n, a.kind)) for n in (a, b)))
    union, other = (a, b) if a.kind == "union" else (b, a)
    if union.kind == "union" and other.kind == "list" and all(interval_of(i) for i in other.items):
        return _same_members(_operands(union, "union"), other.items)
    return False


def _same_ratio(a: Struct, b: Struct) -> bool:
    if len(a.items) != len(b.items):
        return False
    if _in_order(a.items, b.items):
        return True
    nodes = (*a.items, *b.items)
    if not all(is_scalar(n) and not (free_symbols(n) & {"…"}) for n in nodes):
        return False
    return all(
        same_value(Call("*", (a.items[0], y)), Call("*", (b.items[0], x)))
        for x, y in zip(a.items[1:], b.items[1:], strict=True)
    )


def _same_with_relation(a: Node, b: Node) -> bool:
    both = isinstance(a, Struct) and isinstance(b, Struct) and a.kind == b.kind == "rel"
    if both and isinstance(a, Struct) and isinstance(b, Struct):
        if a.mark == b.mark and _in_order(a.items, b.items):
            return True
        if same_relation(a, b):
            return True
    first, second = interval_of(a), interval_of(b)
    if first and second and not (both and _bounded(a) != _bounded(b)):
        return first[2] == second[2] and same(first[0], second[0]) and same(first[1], second[1])
    if both and isinstance(a, Struct) and isinstance(b, Struct):
        left, right = value_of(a), value_of(b)
        if len(a.items) == len(b.items) == 2 or left is None or right is None:
            return False
        return _name_of(a) == _name_of(b) and same(left, right)
    relation, bare = (a, b) if isinstance(a, Struct) and a.kind == "rel" else (b, a)
    value = value_of(relation) if isinstance(relation, Struct) else None
    return value is not None and same(value, bare)


def _bounded(relation: Node) -> Node | None:
    """What an inequality bounds: `ln x` is not `x`."""
    return next((i for i in relation.items if is_name(i)), None) if isinstance(relation, Struct) else None


def _name_of(node: Struct) -> Node | None:
    return next((i for i in (node.items[0], node.items[-1]) if is_name(i)), None)
