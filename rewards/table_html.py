"""Tables in HTML: tree-edit-distance similarity, TEDS (Zhong et al., arXiv 1911.10683)."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from hybrid_rl.scorer_pool.declare import blames_reference, pays_for
from rewards.answer_span import as_text, tagged

_PIECE = 4096
_KEPT = {"table", "thead", "tbody", "tfoot", "tr", "td", "th"}
_CELLS = {"td", "th"}
# The distance of two trees of n nodes takes about n^3 steps in Python; this bounds it to about a second.
_MAX_NODES = 240
_MAX_CHARACTERS = 100_000
_MAX_CELL = 500


@pays_for("repeated", "hedged", "boxes")  # of several tables the first is read
@blames_reference
def teds(answer: str, gold: Any) -> float | None:
    """1 - TED(answer, gold) / max(nodes), in [0, 1]; cells cost the edit distance of their texts over the longer one.

    `th` counts as `td`; markup inside cells, styles and everything outside the table do not count.

    Returns:
        0 for an answer without a table or one too large to compare; None for such a reference.
    """
    return _score(answer, gold, content=True)


@blames_reference
def teds_structure(answer: str, gold: Any) -> float | None:
    """TEDS on rows, cells and spans alone."""
    return _score(answer, gold, content=False)


def _score(answer: str, gold: Any, *, content: bool) -> float | None:
    from apted import APTED

    wanted, found = _read(as_text(gold)), _read(tagged(as_text(answer)))
    if wanted is None:
        return None
    if found is None:
        return 0.0
    distance = APTED(found, wanted, _Costs(content)).compute_edit_distance()
    return max(0.0, 1 - distance / max(found.size(), wanted.size()))


@dataclass
class _Node:
    """A node of the table's tree, in the shape that apted wants: a name and children."""

    name: str
    spans: tuple[str, str] = ("1", "1")
    text: str = ""
    children: list[_Node] = field(default_factory=list)

    def size(self) -> int:
        return 1 + sum(child.size() for child in self.children)


class _Costs:
    """PubTabNet's: 1 to insert or delete a node; to rename one, 1 for another tag or span, else the cells' distance."""

    valuecls = float  # apted sums costs in it

    def __init__(self, content: bool) -> None:
        from rapidfuzz.distance import Levenshtein

        self.content = content
        self._distance = Levenshtein.normalized_distance

    def delete(self, node: _Node) -> float:
        return 1.0

    def insert(self, node: _Node) -> float:
        return 1.0

    def rename(self, a: _Node, b: _Node) -> float:
        if a.name != b.name or a.spans != b.spans:
            return 1.0
        if not self.content or a.name != "td":
            return 0.0
        return float(self._distance(a.text, b.text))

    def children(self, node: _Node) -> list[_Node]:
        return node.children


class _TableReader(HTMLParser):
    """Builds the tree of the first table; tags that are left open are closed by the next row, cell or part."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root: _Node | None = None
        self.open: list[_Node] = []
        self.nodes = 0
        self.done = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _KEPT or self.done or (self.root is None and tag != "table"):
            return
        self.nodes += 1
        if self.nodes > _MAX_NODES:
            self.done = True
            return
        given = dict(attrs)
        spans = (given.get("rowspan") or "1", given.get("colspan") or "1")
        node = _Node("td" if tag in _CELLS else tag, spans)
        if self.root is None:
            self.root, self.open = node, [node]
            return
        self._close({"td": {"td"}, "tr": {"td", "tr"}}.get(node.name, {"td", "tr", "thead", "tbody", "tfoot"}))
        if self.open and len(self.open) < 16:
            self.open[-1].children.append(node)
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        name = "td" if tag in _CELLS else tag
        if name == "table" and self.root is not None:
            self.done = True
        if any(node.name == name for node in self.open[1:]):
            while self.open[-1].name != name:
                self.open.pop()
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1].name == "td" and not self.done:
            self.open[-1].text = " ".join(f"{self.open[-1].text} {data}".split())[:_MAX_CELL]

    def _close(self, names: set[str]) -> None:
        while len(self.open) > 1 and self.open[-1].name in names:
            self.open.pop()


def _read(text: str) -> _Node | None:
    if len(text) > _MAX_CHARACTERS:
        return None
    reader = _TableReader()
    try:
        start = 0
        while start < len(text) and not reader.done:  # what follows the table, or too large a one, is not parsed
            end = text.find("<", start + _PIECE)  # at a tag, so that no word is cut in two
            end = len(text) if end < 0 else end
            reader.feed(text[start:end])
            start = end
    except (AssertionError, ValueError):  # the parser's way to give up on broken declarations
        return None
    return reader.root if reader.nodes <= _MAX_NODES else None


def warm_up() -> None:
    """Load what a first call would otherwise load within its time limit."""
    import apted  # noqa: F401
    import rapidfuzz.distance  # noqa: F401
