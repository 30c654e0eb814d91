"""Lists, relations, ratios and set operations: the outer levels of the grammar."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rewards.math_reading import limits
from rewards.math_reading.cursor import Cursor
from rewards.math_reading.limits import Unreadable
from rewards.math_reading.tree import Node, Struct, Sym

_RELATION = re.compile(r"<=|>=|!=|<|>|=|≈|∈")
_SET_OPERATORS = {"∪": "union", "∩": "inter", "∖": "minus"}
_CLOSERS = {")", "]", "}", "\\}"}


class StructureForms(Cursor):
    """The part of the reader that is above sums; `FormulaReader` is the part below."""

    if TYPE_CHECKING:

        def sum(self) -> Node: ...

    def listing(self, kind: str, mark: str = "") -> Node:
        """Items between commas and semicolons. One item without a comma after it is that item."""
        groups: list[list[Node]] = [[]]
        separated = False
        while True:
            while self.peek() in (",", ";"):
                separated = True
                if self.text[self.at] == ";" and groups[-1]:
                    groups.append([])
                self.at += 1
            if not self.peek() or self.peek() in _CLOSERS:
                break
            groups[-1].append(self.relation())
            if sum(map(len, groups)) > limits.MAX_ITEMS:
                raise Unreadable("too many items")
            if self.peek() not in (",", ";"):
                break
        groups = [group for group in groups if group]
        if len(groups) > 1 and any(len(group) > 1 for group in groups):
            items = tuple(Struct("seq", tuple(group), "()") if len(group) > 1 else group[0] for group in groups)
        else:
            items = tuple(item for group in groups for item in group)
        if not items and kind in ("list", "seq"):
            raise Unreadable("empty")
        if len(items) == 1 and kind in ("list", "seq") and not (separated and kind == "seq"):
            return items[0]
        return Struct(kind, items, mark)

    def relation(self) -> Node:
        if match := _RELATION.match(self.text, self.at):  # "= 4", "> 3"
            self.at = match.end()
            inner = self.ratio()
            return inner if match[0] in "=≈∈" else Struct("rel", (Sym("_"), inner), match[0])
        items, relations = [self.ratio()], []
        while True:
            self.blank()
            match = _RELATION.match(self.text, self.at)
            if not match or len(items) > limits.MAX_DEPTH:
                break
            relations.append(match[0])
            self.at = match.end()
            if match[0] == "≈" and not self.peek():
                raise Unreadable("nothing follows the sign")
            items.append(self.ratio())
        return Struct("rel", tuple(items), " ".join(relations)) if relations else items[0]

    def ratio(self) -> Node:
        items = [self.united()]
        while self.take(":"):
            items.append(self.united())
        return Struct("ratio", tuple(items)) if len(items) > 1 else items[0]

    def united(self) -> Node:
        node = self.sum()
        while (sign := self.peek()) in _SET_OPERATORS and sign:
            self.at += 1
            self.count()
            node = Struct(_SET_OPERATORS[sign], (node, self.sum()))
        return node
